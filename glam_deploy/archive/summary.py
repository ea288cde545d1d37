"""Summary page of an archive's data set: one HTML file without scripts, fonts or links to elsewhere."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from math import ceil, log10
from pathlib import Path

import numpy as np

from glam_deploy.archive.tally import BINS, Tally, tallies
from glam_deploy.outputs.report import RESEARCH_USE

NAME = "summary.html"
_MAX_ROWS = 50
_MAX_REASON = 300
_WIDTH, _HEIGHT, _LEFT = 320, 150, 60
"""Of a histogram, and the place for the numbers at its left, in pixels."""


def write_summary(dest: Path) -> Path:
    """Write `summary.html` into the folder of a data set and return its path; an older one is replaced.

    The page has counts, scores and the identity of what made them, and no identifier of a patient or an image. Memory
    does not depend on the number of rows. Raises UsageError as `tally.tallies`.
    """
    path = dest / NAME
    draft = path.with_name(f".{NAME}.unfinished")
    draft.write_text(page_of(list(tallies(dest))), "utf-8")
    draft.replace(path)
    return path


def page_of(found: Sequence[Tally]) -> str:
    """The page as HTML; all texts are escaped."""
    sections = "\n".join(_section(tally) for tally in found)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Archive summary</title>
<style>{_STYLE}</style>
</head>
<body><main>
<h1>Archive summary</h1>
<p class="notice"><strong>{RESEARCH_USE}.</strong> Scores are not calibrated probabilities, and no basis for
decisions about patients.</p>
{sections}
</main></body>
</html>
"""


def _section(tally: Tally) -> str:
    entries = sum(tally.outcomes.values())
    identity = [row for made, count in tally.made_by.most_common(_MAX_ROWS) for row in _identity(made, count)]
    shown = tally.reasons.most_common(_MAX_ROWS)
    reasons = [(outcome, _cut(reason), f"{count:,}") for (outcome, reason), count in shown]
    rest = sum(tally.reasons.values()) - sum(count for _, count in shown)
    return "\n".join(
        [
            f"<section><h2>Results {escape(tally.digest)}</h2>",
            _table("What made the results", ("property", "value"), identity),
            _table(
                f"Entries of the source: {entries:,}, {tally.bytes / 1e9:,.1f} GB",
                ("outcome", "entries", "share"),
                [(name, f"{count:,}", f"{count / entries:.1%}") for name, count in tally.outcomes.most_common()],
            ),
            _table("Reasons", ("outcome", "reason", "entries"), reasons),
            f"<p>Further reasons: {rest:,} entries.</p>" if rest else "",
            _table("Views with a result", ("view", "images"), _rows(sorted(tally.views.items()))),
            _table("Notices", ("code", "images"), _rows(tally.notices.most_common(_MAX_ROWS))),
            *_scores(tally),
            f"<p>Time of an image, from preprocessing to result: mean {tally.time_ms / tally.timed:,.0f} ms of "
            f"{tally.timed:,} images.</p>" if tally.timed else "",
            "</section>",
        ]
    )  # fmt: skip


def _identity(made: tuple[str, ...], count: int) -> list[tuple[str, str]]:
    engine, bundle, gate, settings = made
    return [("engine", engine), ("bundle", bundle), ("gate", gate), ("made by", settings), ("images", f"{count:,}")]


def _rows(counts: Iterable[tuple[str, int]]) -> list[tuple[str, str]]:
    return [(name or "unknown", f"{count:,}") for name, count in counts]


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, "" without rows. A wide one scrolls by itself. A column of numbers is aligned to the right."""
    if not rows:
        return ""
    kinds = [' class="number"' if all(map(_is_number, column)) else "" for column in zip(*rows, strict=True)]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(columns, kinds, strict=True))
    body = "\n".join(
        f"<tr>{''.join(f'<td{kind}>{escape(text)}</td>' for text, kind in zip(row, kinds, strict=True))}</tr>"
        for row in rows
    )
    label = escape(caption)
    return (
        f'<h3>{label}</h3><div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9.,]+%?", text) is not None


def _scores(tally: Tally) -> list[str]:
    """A histogram for each score and class."""
    if not tally.scores:
        return []
    drawn = "\n".join(_figure(name, counts) for name, counts in sorted(tally.scores.items()))
    text = "Number of images, logarithmic, by score from 0 to 1."
    return [f'<h3>Scores</h3><p>{text}</p><div class="grid">{drawn}</div>']


def _figure(name: str, counts: np.ndarray) -> str:
    """A histogram as inline SVG; its axis is logarithmic, because a few high scores stand beside many low ones."""
    decades = max(1, ceil(log10(int(counts.max()) + 1)))
    shapes = [_tick(10**power, decades) for power in range(decades + 1)]
    shapes += [_bar(i, int(n), decades) for i, n in enumerate(counts) if n]
    shapes += [
        f'<text x="{_x(share * BINS):.1f}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{share:g}</text>'
        for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    ]
    label = escape(name)
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Histogram of {label}">'
        f"{''.join(shapes)}</svg><figcaption>{label}: {int(counts.sum()):,} images</figcaption></figure>"
    )


def _x(place: float) -> float:
    """Pixel of a place on the axis, in bins."""
    return _LEFT + place * (_WIDTH - _LEFT) / BINS


def _y(count: int, decades: int) -> float:
    """Pixel of a count, which is 1 or more; 1 is above the axis, so that it can be seen."""
    return _HEIGHT - 24 - (log10(count) + 0.1) / (decades + 0.1) * (_HEIGHT - 36)


def _bar(number: int, count: int, decades: int) -> str:
    y, label = _y(count, decades), f"{number / BINS:.2f} to {(number + 1) / BINS:.2f}: {count:,}"
    return (
        f'<rect x="{_x(number) + 1:.1f}" y="{y:.1f}" width="{_x(1) - _x(0) - 2:.1f}" height="{_HEIGHT - 24 - y:.1f}">'
        f"<title>{label}</title></rect>"
    )


def _tick(count: int, decades: int) -> str:
    y = _y(count, decades)
    line = f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text x="{_LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{count:,}</text>'


_STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --surface: #fff; --ink: #1b1c1e; --faint: #55585d; --rule: #d9d9d5;
  --mark: #2f6fd0; --warn: #8a3b00; --back: #fdf1e4 }
@media screen and (prefers-color-scheme: dark) { :root { --page: #131416; --surface: #1c1d20; --ink: #f0f0ee;
  --faint: #b4b7bc; --rule: #3a3c40; --mark: #6aa2f5; --warn: #ffb876; --back: #33261a } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.25rem; margin: 0 }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem }
section { background: var(--surface); border: 1px solid var(--rule); border-radius: 8px; padding: 1.25rem;
  margin: 1rem 0 }
.notice { background: var(--back); color: var(--warn); border: 1px solid; border-radius: 8px; padding: .75rem 1.25rem }
.scroll { overflow-x: auto }
.scroll:focus-visible { outline: 2px solid var(--mark) }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums }
th, td { padding: .4rem .6rem; text-align: left; border-top: 1px solid var(--rule); vertical-align: top }
th { color: var(--faint) }
td:first-child, th, .number { white-space: nowrap; overflow-wrap: normal }
.number { text-align: right }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); gap: 1rem }
figure { margin: 0 }
figcaption { color: var(--faint); font-size: .875rem }
svg { display: block; width: 100%; height: auto }
svg rect { fill: var(--mark) }
svg line { stroke: var(--rule) }
svg text { fill: var(--faint); font: 11px system-ui, "DejaVu Sans", sans-serif }
"""

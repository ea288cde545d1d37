"""Where the GPU time of a view goes: both networks, and all else of the chain, by engine and number of patches."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from glam_bench.report import svg, words
from glam_bench.report.markup import Child, Markup, tag

ROW = 40.0
PARTS = (("s-global", "global network"), ("s-local", "local network"), ("s-fusion", "all else"))
CASES = ("n=1,k=1", "n=1,k=3", "n=1,k=6", "n=4,k=1")
"""Images in a run, and patches of each."""


class Chain(NamedTuple):
    """Medians of GPU times in ms, of one engine and case of a `gpu_check`."""

    name: str
    parts: tuple[float, float, float]
    """As in `PARTS`: both networks timed one by one, and the time of the whole chain less theirs."""

    @property
    def total(self) -> float:
        return sum(self.parts)


def chains(steps: Mapping[str, Any], engines: Sequence[str]) -> list[Chain]:
    """`steps`: as in the record of a `gpu_check`. Raises KeyError for an engine whose chain was not timed there."""
    found = []
    for engine in engines:
        results = steps[f"chain_times:{engine}"]["results"]
        for case in CASES:
            times = {name: one["p50"] for name, one in results[case]["stages"].items()}
            networks = times["global"], times["local"]
            rest = results[case]["resident"]["gpu"]["p50"] - sum(networks)
            found.append(Chain(f"{engine}, {_of(case)}", (*networks, rest)))
    return found


def _of(case: str) -> str:
    """ "n=1,k=3" -> "3 patches", "n=4,k=1" -> "4 views"."""
    n, k = (int(part.partition("=")[2]) for part in case.split(","))
    return f"{n} views" if n > 1 else f"{k} patch{'es' if k > 1 else ''}"


def draw(given: Sequence[Chain], width: float) -> svg.Drawing:
    """A bar for each chain on one time axis from 0, the parts in the order of `PARTS`."""
    legend, y = svg.legend(list(PARTS), width)
    scale = width / max(chain.total for chain in given)
    rows = list[Child]()
    for chain in given:
        rows.append(_row(chain, y, width, scale))
        y += ROW
    return svg.drawing(width, y, "GPU time of the chain, by part, for each engine", legend, *rows)


def _row(chain: Chain, y: float, width: float, scale: float) -> Markup:
    shapes: list[Child] = [svg.heading(y + 14, chain.name, words.duration(chain.total), width)]
    x = 0.0
    for ms, (class_, name) in zip(chain.parts, PARTS, strict=True):
        said = words.duration(ms)
        shapes.append(svg.bar(x, y + 20, ms * scale - 2, 14, class_, tag("title", f"{name} {said}")))
        if words.width(said, svg.SMALL) + 8 < ms * scale:
            shapes.append(svg.label(x + 5, y + 31, said, f"on-{class_}"))
        x += ms * scale
    return tag("g", *shapes)

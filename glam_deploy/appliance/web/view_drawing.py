"""SVG over the picture of a view: outlines of its regions, the network's window, and a scale bar.

Positions are those of the source image, so that the drawing fits a picture of the whole image at any size.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from glam_deploy.records import Box

BAR_LENGTHS_MM = (100, 50, 20, 10, 5, 2, 1)
LONGEST_BAR = 0.4
"""Longest scale bar, as a share of the image's width."""
TEXT_SIZE = 0.038
"""Size of the text as a share of the image's height (of a wide image, of its width)."""


def view_drawing(summary: Mapping[str, Any], window: Box | None, *, title: str) -> Markup:
    """The drawing over the picture of one view.

    `summary`: a `ViewSummary` as JSON values. `window`: the part of the image that the network saw, half-open (top,
    left, bottom, right), source frame; None if it is not known. `title`: first words of the text for screen readers.
    """
    rows, columns = summary["shape"]
    regions = summary["regions"]
    bar = _bar(rows, columns, summary["spacing_mm"], at_right=title.startswith("L"))
    labels = [region["label"] for region in regions]
    counts = [f"{labels.count(name)} {name}" for name in dict.fromkeys(labels)]
    words = f"{title}: outlines of {' and '.join(counts) or 'no'} regions"
    return Markup(
        f'<svg class="over" viewBox="0 0 {columns} {rows}" role="img" aria-label="{escape(words)}">'
        f'<g class="contours">{"".join(_outlines(regions))}{_window(window, rows, columns)}</g>{bar}</svg>'
    )


def _outlines(regions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each outline twice, because a dark line beside the coloured one makes it visible on bright tissue."""
    for region in regions:
        points = " ".join(f"{column:g},{row:g}" for row, column in region["outline"])
        yield f'<polygon class="edge" points="{points}"/>'
        yield f'<polygon class="{escape(region["label"])}" points="{points}"/>'


def _window(window: Box | None, rows: int, columns: int) -> str:
    if window is None or tuple(window) == (0, 0, rows, columns):
        return ""
    top, left, bottom, right = window
    return f'<rect class="window" x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/>'


def _bar(rows: int, columns: int, spacing_mm: Sequence[float] | None, *, at_right: bool) -> str:
    """A scale bar in the lower corner that the breast leaves free; none without ImagerPixelSpacing."""
    fitting = [mm for mm in BAR_LENGTHS_MM if spacing_mm and mm / spacing_mm[1] <= LONGEST_BAR * columns]
    if spacing_mm is None or not fitting:
        return ""
    length, size = fitting[0] / spacing_mm[1], TEXT_SIZE * max(rows, 1.25 * columns)
    margin = size / 2
    start = columns - margin - length if at_right else margin
    end, anchor = (columns - margin, "end") if at_right else (margin, "start")
    line = f'd="M{start:.2f},{rows - margin:.2f}h{length:.2f}"'
    return (
        f'<g class="scale"><path class="edge" {line}/><path {line}/>'
        f'<text x="{end:.2f}" y="{rows - 1.8 * margin:.2f}" font-size="{size:.2f}" text-anchor="{anchor}">'
        f"{fitting[0]} mm at the detector</text></g>"
    )

"""How the runs of each rung scatter: every run, window by window, as its distance from the rung's median."""

from collections.abc import Iterator
from math import ceil
from statistics import median

from glam_bench.ladder.windows import COUNTED
from glam_bench.report import svg, words
from glam_bench.report.markup import Child, Markup, tag
from glam_bench.report.rungs import Timed, timed
from glam_bench.report.scales import Linear
from glam_bench.schema import Results

LEAST, MOST = 0.05, 0.5
"""The axis goes as far to both sides as the runs do, within these shares; runs beyond it lie on its edge."""
LANE = 9.0
"""Pixels: height of one window."""
MINUS = "\u2212"
HEAD = 24.0
GAP = 14.0
ANCHORS = {0: None, 2: "middle", 4: "end"}


def draw(results: Results, width: float) -> svg.Drawing:
    """One row a rung, one lane a window; shaded is the rung's noise, the upright strokes are windows' medians."""
    rows = timed(results)
    reach = _reach(rows)
    scale = Linear(low=-reach, high=reach, start=8, end=width - 8)
    shapes, y = list[Child](), 0.0
    for row in rows:
        shapes.append(_row(row, y, scale, width))
        y += _height(row)
    bottom = max(0.0, y - GAP / 2)
    axis = _axis(scale, bottom, reach)
    return svg.drawing(width, bottom + 26, "Every run of each rung, as distance from its median", axis, *shapes)


def _reach(rows: list[Timed]) -> float:
    """Of the axis, in steps of LEAST."""
    largest = max([LEAST, *(abs(d) for row in rows for lane in _lanes(row) for d in lane)])
    return min(ceil(largest / LEAST - 1e-9) * LEAST, MOST)


def _height(row: Timed) -> float:
    return HEAD + LANE * len(row.latency["windows"]) + GAP


def _lanes(row: Timed) -> Iterator[list[float]]:
    """Relative distances from the median of all runs."""
    centre = row.latency["p50"]
    for window in row.latency["windows"]:
        yield [value / centre - 1 for value in window] if centre else []


def _row(row: Timed, y: float, scale: Linear, width: float) -> Markup:
    lanes = list(_lanes(row))
    noise = min(row.latency["noise"], scale.high)
    left, right = scale(-noise), scale(noise)
    shapes: list[Child] = [
        svg.heading(y + 14, row.rung["name"], _summary(row), width),
        svg.bar(left, y + HEAD - 2, right - left, LANE * len(lanes) + 4, "band"),
    ]
    for i, lane in enumerate(lanes):
        class_ = "dots" if i >= len(lanes) - COUNTED else "dots early"
        shapes.append(_lane(lane, y + HEAD + LANE * (i + 0.5), scale, class_))
    return tag("g", *shapes)


def _summary(row: Timed) -> str:
    stable = "" if row.latency["stable"] else ", unstable"
    return f"{words.duration(row.latency['p50'])} ± {words.percent(row.latency['noise'])}{stable}"


def _lane(lane: list[float], y: float, scale: Linear, class_: str) -> Markup | None:
    if not lane:
        return None
    clipped = [scale(min(max(d, scale.low), scale.high)) for d in lane]
    middle = scale(min(max(median(lane), scale.low), scale.high))
    return tag("g", svg.dots([(x, y) for x in clipped], class_), svg.line(middle, y - 4, middle, y + 4, "tick"))


def _axis(scale: Linear, bottom: float, reach: float) -> Markup:
    shapes = list[Child]()
    for i, share in enumerate((-reach, -reach / 2, 0.0, reach / 2, reach)):
        x = scale(share)
        shapes.append(svg.line(x, 20, x, bottom, "grid"))
        sign = "+" if share > 0 else MINUS if share < 0 else ""
        shown = "median" if share == 0 else sign + words.percent(abs(share))
        shapes.append(
            svg.label({0: 0.0, 4: scale.end + 8}.get(i, x), bottom + 18, shown, "small", ANCHORS.get(i, "middle"))
        )
    return tag("g", *shapes)

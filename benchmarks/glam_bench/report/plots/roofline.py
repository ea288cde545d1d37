"""The networks under the machine's roof: what its memory and its arithmetic would allow, and what was reached."""

from math import log10
from typing import NamedTuple

from glam_bench.ladder.roofline import WINOGRAD
from glam_bench.report import svg, words
from glam_bench.report.markup import Child, Markup, tag
from glam_bench.report.scales import Log, spread
from glam_bench.schema import Roofline, RooflineStage

HEIGHT = 360.0
LEFT, RIGHT, BOTTOM, TOP = 40.0, 38.0, 40.0, 24.0
NAMES = 116.0
"""Pixels beside the points."""
MOST_NAMES = 0.4
"""And no more of the width than that, on each side."""
SLOPE = 0.5
"""Decades below the first ridge."""
LABEL_DISTANCE = 18.0
"""Pixels from a point to its name."""
LABEL_GAP = 15.0


class Point(NamedTuple):
    """One network of one rung."""

    stage: RooflineStage
    intensity: float
    """Operations a byte."""
    rate: float
    """Operations a second."""


def points(roofline: Roofline) -> list[Point]:
    """Those that have a place on logarithmic axes."""
    placed = [s for s in roofline["stages"] if min(s["flop"], s["bytes"], s["ms"]) > 0]
    return [Point(s, s["flop"] / s["bytes"], s["flop"] / s["ms"] * 1e3) for s in placed]


def share(stage: RooflineStage) -> str:
    """Of its roof; of Winograd's form, which has none for the operations that are counted, its name."""
    return "Winograd" if stage.get("algorithm") == WINOGRAD else words.percent(stage["share_of_peak"])


def draw(roofline: Roofline, width: float) -> svg.Drawing | None:
    """Both axes logarithmic; circles are the global network, squares the local one. None where nothing is known."""
    shown = points(roofline)
    peaks = {n: v for n, v in roofline["peaks"]["flop_per_s"].items() if v is not None and v > 0}
    bandwidth = roofline["peaks"]["bytes_per_s"]
    if not shown or not peaks or not bandwidth > 0:
        return None
    across, up = _scales(shown, peaks, bandwidth, width)
    title = "Operations a second against operations a byte, under the machine's measured peaks"
    roofs = _roofs(peaks, bandwidth, across, up)
    return svg.drawing(width, HEIGHT, title, _axes(across, up), roofs, *_marks(shown, across, up))


def _scales(shown: list[Point], peaks: dict[str, float], bandwidth: float, width: float) -> tuple[Log, Log]:
    """The points in the middle with room for names on both sides; all ridges and peaks within."""
    intensities, rates = [p.intensity for p in shown], [p.rate for p in shown]
    low, high = _span(min(intensities), max(intensities), min(peaks.values()) / bandwidth, width - LEFT - RIGHT)
    up = Log(low=min(rates) / 1.8, high=max([*peaks.values(), *rates]) * 1.8, start=HEIGHT - BOTTOM, end=TOP)
    return Log(low=low, high=high, start=LEFT, end=width - RIGHT), up


def _span(least: float, most: float, ridge: float, room: float) -> tuple[float, float]:
    """Of the axis: names have their place on both sides of the points, and the slope below the ridge is seen."""
    share = min(NAMES / room, MOST_NAMES)
    points = max(log10(most / least), 0.1)
    left = max(points * share / (1 - 2 * share), log10(least / ridge) + SLOPE)
    right = (left + points) * share / (1 - share)
    return least / 10**left, most * 10**right


def _roofs(peaks: dict[str, float], bandwidth: float, across: Log, up: Log) -> Markup:
    """Each with its name behind its end."""
    rising = sorted(peaks.items(), key=lambda item: -item[1])
    places = spread([up(peak) for _, peak in rising], LABEL_GAP, up.end, up.start)
    lines = [svg.path(_corners(peak, bandwidth, across, up), "roof") for _, peak in rising]
    names = [svg.label(across.end + 5, y + 4, name, "small") for (name, _), y in zip(rising, places, strict=True)]
    return tag("g", *lines, *names)


def _corners(peak: float, bandwidth: float, across: Log, up: Log) -> list[tuple[float, float]]:
    """Up along the bandwidth, then level at the peak."""
    start = max(across.low, up.low / bandwidth)
    corners = [(start, start * bandwidth), (peak / bandwidth, peak), (across.high, peak)]
    return [(across(x), up(y)) for x, y in corners]


def _axes(across: Log, up: Log) -> Markup:
    shapes = list[Child]()
    for value in up.ticks(24):
        shapes += [svg.line(across.start, up(value), across.end, up(value), "grid")]
        shapes += [svg.label(across.start - 5, up(value) + 4, f"{value / 1e9:,.10g}", "small", "end")]
    for value in across.ticks(44):
        shapes += [svg.label(across(value), up.start + 16, f"{value:,.10g}", "small", "middle")]
    middle = (across.start + across.end) / 2
    shapes.append(svg.label(0, 12, "billion operations a second", "small"))
    return tag("g", *shapes, svg.label(middle, up.start + 34, "operations a byte", "small", "middle"))


def _marks(shown: list[Point], across: Log, up: Log) -> list[Markup]:
    """Points of like intensity share a column of names: the leftmost has it at its left, all others at their right."""
    columns: dict[float, list[Point]] = {}
    for point in sorted(shown, key=lambda p: -p.rate):
        columns.setdefault(round(point.intensity, 1), []).append(point)
    leftmost = min(columns)
    return [_column(column, across, up, left=key == leftmost and len(columns) > 1) for key, column in columns.items()]


def _column(column: list[Point], across: Log, up: Log, *, left: bool) -> Markup:
    places = spread([up(p.rate) for p in column], LABEL_GAP, up.end + 6, up.start - 4)
    side, anchor = (-1, "end") if left else (1, None)
    x = across(column[0].intensity)
    room = (x - across.start if left else across.end - x) - LABEL_DISTANCE
    shapes = list[Child]()
    for point, place in zip(column, places, strict=True):
        y = up(point.rate)
        said = words.fit(point.stage["engine"], room, svg.SMALL)
        shapes += [svg.line(x, y, x + side * (LABEL_DISTANCE - 4), place, "leader"), _mark(point.stage, x, y)]
        shapes.append(svg.label(x + side * LABEL_DISTANCE, place + 4, said, "small halo", anchor))
    return tag("g", *shapes)


def _mark(stage: RooflineStage, x: float, y: float) -> Markup:
    said = tag("title", f"{stage['stage']}, {stage['engine']}: {share(stage)} of its roof")
    if stage["stage"] == "local":
        return tag("rect", said, x=x - 5, y=y - 5, width=10, height=10, class_="s-local ring")
    return tag("circle", said, cx=x, cy=y, r=5.5, class_="s-global ring")

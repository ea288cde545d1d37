"""The plots of an evaluation: curves or dots of several networks in small panels, one for each class."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from glam_bench.report import svg
from glam_bench.report.markup import Child, Markup, tag
from glam_bench.report.scales import Linear
from glam_bench.report.style import MODELS

HEIGHT = 330.0
LEFT, TOP, BOTTOM, GUTTER = 44.0, 46.0, 44.0, 20.0
WIDEST, LEAST = 430.0, 300.0
"""Pixels: no panel is wider; below twice LEAST, one panel stands under the other."""
STEP = 0.002
"""Share of an axis: points of a curve that are closer to the last one are left out."""

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """The points of one network."""

    model: int
    """Number of the network, for its colour."""
    points: Sequence[Point]
    kind: Literal["line", "dots"] = "line"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One small plot."""

    title: str
    series: Sequence[Series]


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What a plot shows; both axes start at 0."""

    title: str
    across: str
    up: str
    widest: float = 1.0
    """End of the horizontal axis; curves are cut there."""
    diagonal: bool = False
    """Whether to draw the line of equal values."""


def draw(panels: Sequence[Panel], names: Sequence[str], axes: Axes, width: float) -> svg.Drawing | None:
    """`names`: of the networks, for the legend. None without panels."""
    if not panels:
        return None
    shown = sorted({one.model for panel in panels for one in panel.series})
    legend, top = svg.legend([(f"c-m-{n % len(MODELS)}", names[n]) for n in shown], width)
    columns = len(panels) if width >= LEAST * len(panels) else 1
    cell = min(width / columns, WIDEST)
    places = [(n % columns * cell, top + n // columns * HEIGHT) for n in range(len(panels))]
    cells = [_panel(panel, axes, place, cell - GUTTER) for panel, place in zip(panels, places, strict=True)]
    return svg.drawing(width, top + HEIGHT * -(-len(panels) // columns), axes.title, legend, *cells)


def _panel(panel: Panel, axes: Axes, place: Point, width: float) -> Markup:
    x, y = place
    across = Linear(low=0, high=axes.widest, start=x + LEFT, end=x + width)
    up = Linear(low=0, high=1, start=y + HEIGHT - BOTTOM, end=y + TOP)
    diagonal = svg.line(across(0), up(0), across(1), up(1), "leader") if axes.diagonal else None
    drawn = (_series(one, across, up) for one in panel.series)
    return tag("g", svg.fitted(x, y + 14, panel.title, width), _frame(axes, across, up, x), diagonal, *drawn)


def _frame(axes: Axes, across: Linear, up: Linear, left: float) -> Markup:
    shapes: list[Child] = [svg.label(left, up.end - 12, axes.up, "small")]
    for value in up.ticks(5):
        shapes.append(svg.line(across.start, up(value), across.end, up(value), "grid"))
        shapes.append(svg.label(across.start - 6, up(value) + 4, f"{value:.3g}", "small", "end"))
    for value in across.ticks(5):
        anchor = "end" if value == across.high else "middle"
        shapes.append(svg.label(across(value), up.start + 17, f"{value:.3g}", "small", anchor))
    shapes.append(svg.label((across.start + across.end) / 2, up.start + 36, axes.across, "small", "middle"))
    return tag("g", *shapes)


def _series(series: Series, across: Linear, up: Linear) -> Markup | None:
    points = list(_inside(series.points, across.high))
    placed = [(across(x), up(y)) for x, y in (points if series.kind == "dots" else _thinned(points, across.high))]
    if not placed:
        return None
    number = series.model % len(MODELS)
    return svg.dots(placed, f"dots s-m-{number}") if series.kind == "dots" else svg.path(placed, f"curve s-m-{number}")


def _inside(points: Iterable[Point], widest: float) -> Iterator[Point]:
    """The points up to `widest`; a curve that goes on beyond it ends there, at its last height."""
    last = 0.0
    for x, y in points:
        if x > widest:
            yield widest, last
            return
        last = y
        yield x, y


def _thinned(points: Sequence[Point], widest: float) -> Iterator[Point]:
    """Without points that cannot be told from the one before; the first and the last remain."""
    kept: Point | None = None
    for number, point in enumerate(points):
        far = kept is None or max(abs(point[0] - kept[0]) / widest, abs(point[1] - kept[1])) >= STEP
        if far or number == len(points) - 1:
            kept = point
            yield point

"""What speed does to the lesions: Dice against the threshold, small plots that all have the same scale."""

from collections.abc import Mapping, Sequence
from math import floor
from typing import NamedTuple

from glam_bench.report import svg, words
from glam_bench.report.markup import Child, Markup, tag
from glam_bench.report.rungs import ordered_classes
from glam_bench.report.scales import Linear
from glam_bench.schema import ByThreshold, Results

LEAST_SPAN = 0.1
"""The axis shows at least Dice 0.9 to 1, so that a difference of nothing looks like nothing."""
CELL, WIDEST = 165.0, 300.0
"""Pixels: no small plot is narrower or wider."""
HEIGHT = 170.0
LEFT, TOP, BOTTOM = 42.0, 26.0, 30.0
GUTTER = 14.0
ROUND, SQUARE = 4.6, 5.2
"""Pixels: radius and side; where the classes agree, the square lies inside the circle."""


class Panel(NamedTuple):
    """One small plot: class -> threshold -> Dice."""

    title: str
    median: Mapping[str, ByThreshold]
    worst: Mapping[str, ByThreshold]


def rungs(results: Results) -> list[Panel]:
    """One a rung of the ladder."""
    found = ((rung["name"], rung["parity"]) for rung in results["ladder"])
    return [Panel(name, parity["dice"], parity["worst_dice"]) for name, parity in found if parity]


def draw(panels: Sequence[Panel], width: float) -> svg.Drawing:
    """Draw the Dice by threshold, one panel for each rung, `width` pixels wide.

    Full lines with marks are medians over the images, thin lines the worst image; colour and mark show the class.
    """
    names = ordered_classes(dict.fromkeys(name for panel in panels for name in panel.median))
    columns = max(1, min(4, int(width // CELL), len(panels)))
    low = floor(min([1 - LEAST_SPAN, *_values(panels)]) * 20) / 20
    legend, top = svg.legend([(f"c-{i % 2}{' round' * (i % 2 == 0)}", name) for i, name in enumerate(names)], width)
    cell = min(width / columns, WIDEST)
    places = [(i % columns * cell, top + i // columns * HEIGHT) for i in range(len(panels))]
    cells = [_cell(panel, names, low, place, cell - GUTTER) for panel, place in zip(panels, places, strict=True)]
    return svg.drawing(width, top + HEIGHT * -(-len(panels) // columns), "Dice against threshold", legend, *cells)


def _values(panels: Sequence[Panel]) -> list[float]:
    curves = [curve for panel in panels for curve in (*panel.median.values(), *panel.worst.values())]
    return words.known(value for curve in curves for value in curve.values())


def _cell(panel: Panel, names: list[str], low: float, place: tuple[float, float], width: float) -> Markup:
    x, y = place
    across = Linear(low=0.1, high=0.9, start=x + LEFT + 4, end=x + width - 4)
    up = Linear(low=low, high=1.0, start=y + HEIGHT - BOTTOM, end=y + TOP)
    shapes: list[Child] = [svg.fitted(x, y + 14, panel.title, width), _axes(across, up, x)]
    for i, name in enumerate(names):
        worst, median = (_points(curves.get(name, {}), across, up) for curves in (panel.worst, panel.median))
        shapes += [_line(worst, f"curve thin k-{i % 2}"), _line(median, f"curve k-{i % 2}"), _marks(median, i % 2)]
    return tag("g", *shapes)


def _axes(across: Linear, up: Linear, x: float) -> Markup:
    shapes = list[Child]()
    for value in up.ticks(5):
        y = up(value)
        shapes += [svg.line(across.start, y, across.end, y, "grid")]
        shapes += [svg.label(x + LEFT - 4, y + 4, f"{value:.3g}", "small", "end")]
    for value in (0.1, 0.5, 0.9):
        shapes.append(svg.label(across(value), up.start + 19, f"{value:g}", "small", "middle"))
    return tag("g", *shapes)


def _points(curve: ByThreshold, across: Linear, up: Linear) -> list[tuple[float, float]]:
    known = ((float(at), value) for at, value in curve.items() if value is not None)
    return [(across(at), up(value)) for at, value in sorted(known)]


def _line(points: list[tuple[float, float]], class_: str) -> Markup | None:
    return svg.path(points, class_) if points else None


def _marks(points: list[tuple[float, float]], index: int) -> Markup:
    """Circles for the first class, squares for the second."""
    if index == 0:
        return tag("g", *(tag("circle", cx=x, cy=y, r=ROUND, class_="c-0") for x, y in points))
    corners = ((x - SQUARE / 2, y - SQUARE / 2) for x, y in points)
    return tag("g", *(tag("rect", x=x, y=y, width=SQUARE, height=SQUARE, class_="c-1") for x, y in corners))

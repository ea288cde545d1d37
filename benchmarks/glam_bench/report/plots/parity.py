"""What a rung does to the lesions: Dice against the threshold, one small plot a rung, all on the same scale."""

from math import floor

from glam_bench.bench.schema import ByThreshold, Results, Rung
from glam_bench.report import svg, words
from glam_bench.report.markup import Child, Markup, tag
from glam_bench.report.rungs import ordered_classes
from glam_bench.report.scales import Linear

LEAST_SPAN = 0.1
"""The axis shows at least Dice 0.9 to 1, so that a difference of nothing looks like nothing."""
CELL = 165.0
"""Pixels: no small plot is narrower."""
HEIGHT = 170.0
LEFT, TOP, BOTTOM = 34.0, 26.0, 30.0
GUTTER = 14.0
ROUND, SQUARE = 4.6, 5.2
"""Pixels: radius and side; where the classes agree, the square lies inside the circle."""


def draw(results: Results, width: float) -> svg.Drawing:
    """Full lines with marks are medians over the images, thin ones the worst image; colour and mark tell the class."""
    rungs = [rung for rung in results["ladder"] if rung["parity"]]
    names = ordered_classes(dict.fromkeys(name for rung in rungs for name in _curves(rung, "dice")))
    columns = max(1, min(4, int(width // CELL), len(rungs)))
    low = floor(min([1 - LEAST_SPAN, *(v for rung in rungs for v in _values(rung))]) * 20) / 20
    legend, top = svg.legend([(f"c-{i % 2}{' round' * (i % 2 == 0)}", name) for i, name in enumerate(names)], width)
    cell = width / columns
    places = [(i % columns * cell, top + i // columns * HEIGHT) for i in range(len(rungs))]
    cells = [_cell(rung, names, low, place, cell - GUTTER) for rung, place in zip(rungs, places, strict=True)]
    return svg.drawing(width, top + HEIGHT * -(-len(rungs) // columns), "Dice against threshold", legend, *cells)


def _curves(rung: Rung, kind: str) -> dict[str, ByThreshold]:
    """`kind`: "dice" (medians) or "worst_dice"."""
    parity = rung["parity"]
    return {} if parity is None else parity["dice"] if kind == "dice" else parity["worst_dice"]


def _values(rung: Rung) -> list[float]:
    curves = [*_curves(rung, "dice").values(), *_curves(rung, "worst_dice").values()]
    return words.known(value for curve in curves for value in curve.values())


def _cell(rung: Rung, names: list[str], low: float, place: tuple[float, float], width: float) -> Markup:
    x, y = place
    across = Linear(low=0.1, high=0.9, start=x + LEFT + 4, end=x + width - 4)
    up = Linear(low=low, high=1.0, start=y + HEIGHT - BOTTOM, end=y + TOP)
    shapes: list[Child] = [svg.fitted(x, y + 14, rung["name"], width), _axes(across, up, x)]
    for i, name in enumerate(names):
        worst = _points(_curves(rung, "worst_dice").get(name, {}), across, up)
        median = _points(_curves(rung, "dice").get(name, {}), across, up)
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

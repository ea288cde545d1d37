"""What a precision search tried: how fast, against how true. One panel a stage."""

from collections.abc import Sequence

from glam_bench.report import svg, words
from glam_bench.report.markup import Child, Markup, tag
from glam_bench.report.scales import Linear, spread
from glam_bench.schema import Mixture

HEIGHT = 300.0
LEFT, TOP, BOTTOM = 42.0, 44.0, 40.0
GUTTER = 24.0
NARROW = 600.0
"""Pixels: below that, one panel stands under the other."""
NAMES = 0.45
"""Share of a panel at its right that names have."""
BOLD = svg.SMALL * svg.BOLD / svg.TEXT
"""Bold small text is as wide as plain text of this size."""
LABEL_GAP, LABEL_DISTANCE = 15.0, 18.0
"""Pixels between names, and from a point to its name."""


def draw(points: Sequence[Mixture], width: float) -> svg.Drawing | None:
    """Time across, from 0; the lowest Dice of any map, class, threshold and image upwards, 0 to 1."""
    panels: dict[str, list[Mixture]] = {}
    for point in points:
        panels.setdefault(point["stage"], []).append(point)
    if not all(max(point["latency_ms"] for point in panel) > 0 for panel in panels.values()):
        return None
    columns = len(panels) if width >= NARROW else 1
    cell = (width + GUTTER) / columns
    drawn = [
        _panel(stage, panel, (i % columns * cell, i // columns * HEIGHT), cell - GUTTER)
        for i, (stage, panel) in enumerate(panels.items())
    ]
    title = "Worst Dice against time of the mixtures that the precision search tried"
    return svg.drawing(width, HEIGHT * -(-len(panels) // columns), title, *drawn)


def _panel(stage: str, points: list[Mixture], place: tuple[float, float], width: float) -> Markup:
    x, y = place
    slowest = max(point["latency_ms"] for point in points)
    across = Linear(low=0, high=slowest, start=x + LEFT, end=x + LEFT + (width - LEFT) * (1 - NAMES))
    up = Linear(low=0, high=1, start=y + HEIGHT - BOTTOM, end=y + TOP)
    title = svg.fitted(x, y + 14, f"{stage} graph", width)
    return tag("g", title, _axes(across, up, x, x + width), _marks(points, across, up, x + width))


def _axes(across: Linear, up: Linear, x: float, right: float) -> Markup:
    shapes: list[Child] = [svg.label(x, up.end - 12, "worst Dice", "small")]
    for value in up.ticks(5):
        shapes += [svg.line(across.start, up(value), right, up(value), "grid")]
        shapes += [svg.label(x + LEFT - 6, up(value) + 4, f"{value:.3g}", "small", "end")]
    for value in (0.0, across.high):
        said = words.duration(value)
        shapes.append(svg.label(across(value), up.start + 18, said, "small", "middle"))
    return tag("g", *shapes)


def _marks(points: list[Mixture], across: Linear, up: Linear, right: float) -> Markup:
    """All names in one column at the right, joined to their points."""
    ordered = sorted(points, key=lambda point: (-point["dice_worst"], point["latency_ms"]))
    places = spread([up(point["dice_worst"]) for point in ordered], LABEL_GAP, up.end, up.start)
    column = across.end + LABEL_DISTANCE
    shapes = list[Child]()
    for point, place in zip(ordered, places, strict=True):
        x, y = across(point["latency_ms"]), up(point["dice_worst"])
        shapes.append(svg.line(x, y, column - 4, place, "leader"))
        shapes.append(_label(point, column, place + 4, right - column))
    return tag("g", *shapes, *(_mark(point, across, up) for point in ordered))


def _label(point: Mixture, x: float, y: float, room: float) -> Markup:
    if point["taken"]:
        return svg.label(x, y, words.fit(_name(point), room, BOLD), "small strong halo")
    return svg.label(x, y, words.fit(_name(point), room, svg.SMALL), "small halo")


def _mark(point: Mixture, across: Linear, up: Linear) -> Markup:
    said = f"{_name(point)}: {words.duration(point['latency_ms'])}, worst Dice {words.dice(point['dice_worst'])}"
    class_ = "mark ring" if point["passed"] else "missed"
    at = {"cx": across(point["latency_ms"]), "cy": up(point["dice_worst"])}
    return tag("circle", tag("title", said), **at, r=5.5 if point["passed"] else 4.5, class_=class_)


def _name(point: Mixture) -> str:
    share = f" {words.percent(point['narrow_share'])}" if point["narrow_share"] else ""
    return point["kind"].replace("int8", f"int8{share}")

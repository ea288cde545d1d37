"""Plot of a precision search: latency against agreement with FP32."""

from collections.abc import Iterator, Sequence

from glam_deploy.bundle import SearchPoint

WIDTH, HEIGHT = 720, 360
LEFT, TOP, SIDE, GAP = 60, 40, 240, 90
"""Position of the first panel, side of a panel, and gap between two, in pixels."""
COLOURS = {True: "#1a7f37", False: "#b35900"}
"""Colour of a marker by whether the mixture passed; its shape shows it too."""


def frontier_svg(points: Sequence[SearchPoint]) -> str:
    """SVG with one panel per stage: latency to the right, worst Dice upwards; a disc passed, a ring did not."""
    stages = list(dict.fromkeys(point.stage for point in points))
    body = [line for n, stage in enumerate(stages) for line in _panel(n, [p for p in points if p.stage == stage])]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif"'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([f'{head} font-size="11">', ground, *body, "</svg>"]) + "\n"


def _panel(number: int, points: Sequence[SearchPoint]) -> Iterator[str]:
    left, bottom = LEFT + number * (SIDE + GAP), TOP + SIDE
    slowest = max(point.latency_ms for point in points) * 1.1
    yield f'<text x="{left}" y="{TOP - 14}" font-size="14">{points[0].stage}</text>'
    yield f'<path d="M{left} {TOP}V{bottom}H{left + SIDE}" fill="none" stroke="#555"/>'
    yield f'<text x="{left + SIDE / 2}" y="{bottom + 34}" text-anchor="middle">latency, ms (0 to {slowest:.0f})</text>'
    for share in (0, 0.5, 1):
        yield f'<text x="{left - 6}" y="{bottom - share * SIDE + 4}" text-anchor="end">{share:g}</text>'
    yield f'<text x="{left - 34}" y="{TOP + SIDE / 2}" transform="rotate(-90 {left - 34} {TOP + SIDE / 2})">Dice</text>'
    for point in points:
        x, y = left + point.latency_ms / slowest * SIDE, bottom - point.dice_worst * SIDE
        yield from _marker(x, y, point)


def _marker(x: float, y: float, point: SearchPoint) -> Iterator[str]:
    colour = COLOURS[point.passed]
    fill = colour if point.passed else "white"
    name = str(point.kind).replace("int8", f"int8 {point.narrow_share:.0%}")
    label = (
        f"{name}: {point.latency_ms:.0f} ms, worst Dice {point.dice_worst:.3f}, wide: {', '.join(point.wide) or '-'}"
    )
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{colour}"><title>{label}</title></circle>'
    yield f'<text x="{x + 8:.1f}" y="{y + 14:.1f}">{name}</text>'

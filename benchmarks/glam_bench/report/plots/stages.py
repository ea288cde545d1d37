"""Where the time of an image goes: the steps of each rung as shares of their sum."""

from glam_bench.report import svg, words
from glam_bench.report.markup import Child, Markup, tag
from glam_bench.schema import Results

ORDER = ("preprocess", "copy", "global", "patches", "local", "gpu", "fusion")
"""As an image meets them; "gpu" is all that runs there. Steps of other names follow and share a colour."""
ROW = 46.0


def steps(results: Results) -> list[str]:
    """All steps of any rung, in order."""
    found = {name for rung in results["ladder"] for name in rung["stages_ms"] or {}}
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def draw(results: Results, width: float) -> svg.Drawing:
    """One stacked bar a rung, as wide as the plot; its sum is in words."""
    found = steps(results)
    legend, y = svg.legend([(swatch(name), name) for name in found], width)
    rows = list[Child]()
    for rung in results["ladder"]:
        if parts := rung["stages_ms"]:
            rows.append(_row(rung["name"], {name: parts[name] for name in found if name in parts}, y, width))
            y += ROW
    return svg.drawing(width, y, "Share of each step in the time of one image", legend, *rows)


def swatch(name: str) -> str:
    """The class of a step's colour."""
    return f"s-{name}" if name in ORDER else "s-other"


def _row(name: str, parts: dict[str, float], y: float, width: float) -> Markup:
    total = sum(parts.values())
    shapes: list[Child] = [
        svg.heading(y + 14, name, words.duration(total), width),
    ]
    x = 0.0
    for step, ms in parts.items():
        share = ms / total if total else 0.0
        shapes.append(_part(step, f"{step} {words.percent(share)}", x, y + 20, share * width))
        x += share * width
    return tag("g", *shapes)


def _part(step: str, said: str, x: float, y: float, long: float) -> Markup | None:
    """Two pixels of surface part it from the next; named where there is room. None where it would be thinner."""
    if long < 2.5:
        return None
    inside = (
        svg.label(x + 8, y + 12.5, said, f"on-{swatch(step)}") if words.width(said, svg.SMALL) + 12 < long else None
    )
    return tag("g", svg.bar(x, y, long - 2, 17, swatch(step), tag("title", said)), inside)

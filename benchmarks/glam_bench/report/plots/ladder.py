"""The ladder: how long one image takes each way, how many times as fast that is, and what it costs in Dice."""

from glam_bench.ladder.rungs import PUBLISHED
from glam_bench.report import svg, words
from glam_bench.report.markup import Child, Markup, tag
from glam_bench.report.rungs import is_low, speed, timed, worst_dice
from glam_bench.schema import Latency, Results, Rung

SPEED_RIGHT = 70
"""Pixels from the right edge to the end of the column of speeds; Dice ends at the edge."""
NAME_RIGHT = 130
ROW = 46
LINE = 16
MOST_LINES = 4
LOW = " \u25be"
"""A triangle that points down, for those who do not see the colour."""


def draw(results: Results, width: float) -> svg.Drawing:
    """Bars from 0, linear, of the median latency; a rung that cannot run shows why."""
    scale = _scale([latency for _, latency in timed(results)], width)
    rows: list[Child] = [_head(results, width)]
    y = 24.0
    for rung in results["ladder"]:
        shapes, height = _row(rung, y, width, scale)
        rows.append(shapes)
        y += height
    return svg.drawing(width, y + 4, "Median time of one image, speed and Dice of each rung", *rows)


def _scale(latencies: list[Latency], width: float) -> float:
    """Pixels a millisecond: every time fits behind its bar."""
    room = max((words.width(_time(latency), svg.SMALL) for latency in latencies), default=0.0) + 10
    return (width - room) / max([1e-9, *(latency["p50"] for latency in latencies)])


def _time(latency: Latency) -> str:
    return words.duration(latency["p50"]) + ("" if latency["stable"] else ", unstable")


def _head(results: Results, width: float) -> Markup:
    machine = f"median time of one image on {words.machine(results['machine'])}"
    return tag(
        "g",
        svg.label(0, 12, words.fit(machine, width - NAME_RIGHT, svg.SMALL), "small"),
        svg.label(width - SPEED_RIGHT, 12, "speed", "small", "end"),
        svg.label(width, 12, "Dice", "small", "end"),
    )


def _row(rung: Rung, y: float, width: float, scale: float) -> tuple[Markup, float]:
    if latency := rung["latency_ms"]:
        return _timed(rung, latency, y, width, scale), ROW
    return _unavailable(rung, y, width)


def _timed(rung: Rung, latency: Latency, y: float, width: float, scale: float) -> Markup:
    """Name, speed and Dice above the bar, the time behind it."""
    long = latency["p50"] * scale
    price = worst_dice(rung)
    shown, class_ = (words.dice(price) + LOW, "low") if is_low(price) else (words.dice(price), None)
    return tag(
        "g",
        svg.fitted(0, y + 14, rung["name"], width - NAME_RIGHT - 8),
        svg.label(width - SPEED_RIGHT, y + 14, words.times(speed(rung)), "strong", "end"),
        svg.label(width, y + 14, shown, class_, "end"),
        svg.bar(0, y + 20, long, 15, "base" if rung["key"] == PUBLISHED else "mark"),
        svg.label(long + 7, y + 32, _time(latency), "small"),
    )


def _unavailable(rung: Rung, y: float, width: float) -> tuple[Markup, float]:
    reason = words.lines(f"Not run: {rung['unavailable']}", width, svg.SMALL, MOST_LINES)
    said = [svg.label(0, y + 14 + LINE * (i + 1), line, "small") for i, line in enumerate(reason)]
    name = svg.fitted(0, y + 14, rung["name"], width, "faint")
    return tag("g", name, *said, tag("title", str(rung["unavailable"]))), 14 + LINE * len(reason) + 16

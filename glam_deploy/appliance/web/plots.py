"""Two small plots as SVG for a page, whose style sheet colours them: no style, script or link of their own."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10

from markupsafe import Markup

from glam_deploy.appliance.state.overview import Delivered, Finished
from glam_deploy.appliance.web.render import span

WIDTH, HEIGHT = 560, 190
LEFT, BOTTOM, TOP = 46, 26, 12
HOURS = 24


def throughput(finished: Sequence[Finished], now: float) -> Markup:
    """Exams that the network finished in each of the last 24 hours, the running one at the right."""
    counts = [0] * HOURS
    for one in finished:
        hour = floor((now - one.finished_at) / 3600)
        if 0 <= hour < HOURS:
            counts[HOURS - 1 - hour] += 1
    top = _nice(max(counts))
    wide = (WIDTH - LEFT) / HOURS
    bars = [
        _tag("rect", _title(f"{count} {_ago(HOURS - 1 - i)}"), class_="bar", rx=1.5, width=wide - 3,
             x=LEFT + i * wide + 1.5, y=_y(count / top), height=_y(0) - _y(count / top))
        for i, count in enumerate(counts) if count
    ]  # fmt: skip
    title = f"Exams per hour over {HOURS} hours: {sum(counts)} in all, {max(counts)} in the busiest hour"
    return _drawing(title, *_grid([(share, f"{top * share:g}") for share in (0, 0.5, 1)]), *_hours(), *bars)


def latency(finished: Sequence[Finished], delivered: Sequence[Delivered], now: float) -> Markup:
    """How long waiting, network and sending took, a dot each over the last 24 hours, on a logarithmic scale."""
    marks = {
        "waiting": [(one.finished_at, one.waited) for one in finished],
        "network": [(one.finished_at, one.worked) for one in finished],
        "sending": [(one.delivered_at, one.sent) for one in delivered],
    }
    recent = {name: [(at, s) for at, s in all_ if 0 <= now - at < HOURS * 3600] for name, all_ in marks.items()}
    values = [max(seconds, 0.01) for points in recent.values() for _, seconds in points] or [1.0]
    low, high = floor(log10(min(values))), max(ceil(log10(max(values))), floor(log10(min(values))) + 1)
    dots = [
        _tag("path", class_=f"dots {name}", d="".join(_dot(now, at, seconds, low, high) for at, seconds in points))
        for name, points in recent.items() if points
    ]  # fmt: skip
    lines = [((power - low) / (high - low), span(10.0**power)) for power in range(low, high + 1)]
    title = f"Seconds of {len(recent['network'])} exams and {len(recent['sending'])} deliveries over {HOURS} hours"
    return _drawing(title, *_grid(lines), *_hours(), *dots)


def _dot(now: float, at: float, seconds: float, low: int, high: int) -> str:
    x = WIDTH - (now - at) / 3600 / HOURS * (WIDTH - LEFT)
    return f"M{x:.1f},{_y((log10(max(seconds, 0.01)) - low) / (high - low)):.1f}h0"


def _nice(most: int) -> int:
    """An even number of exams at the top of the scale."""
    steps = (2, 4, 6, 8, 10, 20, 30, 40, 60, 80, 100)
    return next((step for step in steps if step >= most), 2 * ceil(most / 200) * 100)


def _y(share: float) -> float:
    return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)


def _grid(lines: Sequence[tuple[float, str]]) -> list[str]:
    drawn = [_tag("line", class_="grid", x1=LEFT, x2=WIDTH, y1=_y(share), y2=_y(share)) for share, _ in lines]
    words = [_tag("text", escape(text), x=LEFT - 8, y=_y(share) + 4, text_anchor="end") for share, text in lines]
    return drawn + words


def _hours() -> list[str]:
    anchors = {24: "start", 0: "end"}
    return [
        _tag("text", f"\u2212{hours} h" if hours else "now", y=HEIGHT - 6, text_anchor=anchors.get(hours, "middle"),
             x=WIDTH - hours / HOURS * (WIDTH - LEFT))
        for hours in (24, 18, 12, 6, 0)
    ]  # fmt: skip


def _ago(hours: int) -> str:
    return "in this hour" if hours == 0 else f"{hours} to {hours + 1} hours ago"


def _drawing(title: str, *shapes: str) -> Markup:
    inside = "".join((_title(title), *shapes))
    return Markup(_tag("svg", inside, class_="plot", role="img", viewBox=f"0 0 {WIDTH} {HEIGHT}", aria_label=title))


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _tag(name: str, inside: str = "", **attributes: str | float) -> str:
    """An underscore is a hyphen, one at the end is dropped; `inside` is markup."""
    words = " ".join(f'{key.rstrip("_").replace("_", "-")}="{_shown(value)}"' for key, value in attributes.items())
    return f"<{name} {words}>{inside}</{name}>"


def _shown(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")

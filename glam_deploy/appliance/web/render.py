"""HTML of the pages: templates, filters for times, sizes and states, and two plots as SVG."""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from math import ceil, floor, log10
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from glam_deploy import __version__
from glam_deploy.appliance.state.overview import DeliveryTiming, JobTiming
from glam_deploy.appliance.web.context import context_of, visitor_of
from glam_deploy.outputs.report import RESEARCH_USE, UNCALIBRATED

DASH = "\u2013"
SPACE = "\u00a0"

STAGE_LABELS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "receiving": ("Receiving", "busy", "instances still arrive"),
        "waiting": ("Waiting", "busy", "complete, waiting for the network"),
        "working": ("Working", "busy", "in the network"),
        "sending": ("Sending", "busy", "results being sent"),
        "delivered": ("Delivered", "good", "proven at every target"),
        "done": ("Done", "good", "results ready"),
        "failed": ("Failed", "bad", "no result; needs a person"),
        "undelivered": ("Undelivered", "bad", "refused by a target; needs a person"),
        "ignored": ("Ignored", "calm", "no mammogram"),
        "superseded": ("Superseded", "calm", "replaced by a later one"),
        "discarded": ("Discarded", "calm", "discarded by a person"),
    }
)
"""Stage -> label, kind (which selects the colour), and description."""

_KINDS: Mapping[str, str] = MappingProxyType(
    {
        **{name: kind for name, (_, kind, _) in STAGE_LABELS.items()},
        **dict.fromkeys(("ready", "done", "delivered", "proven", "sent", "candidate"), "good"),
        **dict.fromkeys(("failing", "dead", "failed", "refused", "silent", "missing"), "bad"),
        **dict.fromkeys(("starting", "pending", "running", "waiting"), "busy"),
    }
)


def render(request: Request, name: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """The template `name` as an answer."""
    visitor = visitor_of(request)
    shared = {
        "form_token": visitor and visitor.form_token,
        "credential": visitor and visitor.credential,
        "user": visitor and visitor.user,
        "may_change": visitor is not None and visitor.user.role == "operator",
        "base": context_of(request).config.web.prefix,
        "path": request.url.path,
    }
    environment = _environment()
    assert values.keys().isdisjoint({*shared, *environment.globals}), "a page would show its own value for a shared one"
    return HTMLResponse(environment.get_template(name).render({**shared, **values}), status)


def redirect(request: Request, path: str) -> RedirectResponse:
    """A redirection (303) to a page of ours; `path` without that of `public_url`."""
    return RedirectResponse(context_of(request).config.web.prefix + path, 303)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("glam_deploy.appliance.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        version=__version__,
        research_use=RESEARCH_USE,
        uncalibrated=UNCALIBRATED,
        stage_labels=STAGE_LABELS,
        dash=DASH,
        space=SPACE,
    )
    environment.filters.update(
        clock=clock, day=day, span=span, ago=ago, size=size, kind=kind, score=score, count=count, plain=plain
    )
    return environment


def clock(at: float | None) -> str:
    """Time of day, UTC: "14:03:22"."""
    return DASH if at is None else time.strftime("%H:%M:%S", time.gmtime(at))


def day(at: float | None) -> str:
    """Date and time, UTC: "2026-03-01 14:03"."""
    return DASH if at is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))


def span(seconds: float | None) -> str:
    """A duration in one unit or two: "0.42 s", "14 s", "3 min", "2 h 5 min", "4 d 3 h"."""
    if seconds is None:
        return DASH
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.2g}{SPACE}s" if seconds >= 0.005 else f"0{SPACE}s"
    if seconds < 120:
        return f"{seconds:.0f}{SPACE}s"
    minutes = int(seconds // 60)
    for unit, smaller, length in (("d", "h", 1440), ("h", "min", 60)):
        if minutes >= 2 * length or (unit == "h" and minutes >= length):
            rest = minutes % length // (60 if unit == "d" else 1)
            return f"{minutes // length}{SPACE}{unit}" + (f" {rest}{SPACE}{smaller}" if rest else "")
    return f"{minutes}{SPACE}min"


def ago(seconds: float) -> str:
    """ "now", "14 s ago", "3 min ago" """
    return "now" if seconds < 2.5 else f"{span(round(seconds))} ago"


def size(number: float | None) -> str:
    """Bytes in the unit that leaves one to four digits: "812 MB"; powers of 1000."""
    if number is None:
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g}{SPACE}{unit}"
        number /= 1000
    return f"{number:.4g}{SPACE}TB"


def count(number: int) -> str:
    """Number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def score(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def kind(state: str) -> str:
    """Kind of a state of anything: good, busy, bad or calm."""
    return _KINDS.get(state, "calm")


def plain(value: object) -> str:
    """Any JSON value on one line."""
    if value in (None, "", [], {}):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


WIDTH, HEIGHT = 560, 190
LEFT, BOTTOM, TOP = 76, 26, 16
HOURS = 24
MOST_LINES = 4
"""Intervals between the lines of a logarithmic scale, at most, so that their labels keep apart."""


def throughput(finished: Sequence[JobTiming], now: float) -> Markup:
    """Bar plot (SVG): exams finished in each of the last 24 hours, the current hour at the right."""
    counts = [0] * HOURS
    for one in finished:
        hour = floor((now - one.finished_at) / 3600)
        if 0 <= hour < HOURS:
            counts[HOURS - 1 - hour] += 1
    top = _nice(max(counts))
    wide = (WIDTH - LEFT) / HOURS
    hours = [*(f"{ago} to {ago + 1} hours ago" for ago in range(HOURS - 1, 0, -1)), "in this hour"]
    bars = [
        _tag("rect", _title(f"{count} {hours[i]}"), class_="bar", rx=1.5, width=wide - 3,
             x=LEFT + i * wide + 1.5, y=_y(count / top), height=_y(0) - _y(count / top))
        for i, count in enumerate(counts) if count
    ]  # fmt: skip
    title = f"Exams per hour over {HOURS} hours: {sum(counts)} in all, {max(counts)} in the busiest hour"
    return _drawing(title, *_grid([(share, f"{top * share:g}") for share in (0, 0.5, 1)]), *_hours(), *bars)


def latency(finished: Sequence[JobTiming], delivered: Sequence[DeliveryTiming], now: float) -> Markup:
    """Dot plot (SVG): waiting, network and sending times over the last 24 hours, on a logarithmic scale."""
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
    step = ceil((high - low) / MOST_LINES)
    lines = [((power - low) / (high - low), _rough(10.0**power)) for power in range(low, high + 1, step)]
    title = f"Seconds of {len(recent['network'])} exams and {len(recent['sending'])} deliveries over {HOURS} hours"
    return _drawing(title, *_grid(lines), *_hours(), *dots)


def _dot(now: float, at: float, seconds: float, low: int, high: int) -> str:
    x = WIDTH - (now - at) / 3600 / HOURS * (WIDTH - LEFT)
    return f"M{x:.1f},{_y((log10(max(seconds, 0.01)) - low) / (high - low)):.1f}h0"


def _rough(seconds: float) -> str:
    """A duration for a scale, in one unit: "0.1 s", "17 min", "2.8 h"."""
    unit, length = ("s", 1) if seconds < 600 else ("min", 60) if seconds < 7200 else ("h", 3600)
    number = seconds / length
    return f"{number:.2g}{SPACE}{unit}" if number < 10 else f"{number:.0f}{SPACE}{unit}"


def _nice(most: int) -> int:
    """Upper end of the scale: an even number of exams."""
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


def _drawing(title: str, *shapes: str) -> Markup:
    inside = "".join((_title(title), *shapes))
    return Markup(_tag("svg", inside, class_="plot", role="img", viewBox=f"0 0 {WIDTH} {HEIGHT}", aria_label=title))


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _tag(name: str, inside: str = "", **attributes: str | float) -> str:
    """An SVG element. In attribute names an underscore becomes a hyphen and one at the end is dropped; `inside` is
    markup.
    """
    words = " ".join(f'{key.rstrip("_").replace("_", "-")}="{_shown(value)}"' for key, value in attributes.items())
    return f"<{name} {words}>{inside}</{name}>"


def _shown(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")

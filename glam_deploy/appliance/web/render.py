"""Templates -> HTML, with the words for times, sizes and states that all pages share."""

import time
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from glam_deploy import __version__
from glam_deploy.appliance.web.access import visitor_of
from glam_deploy.outputs.report import RESEARCH_USE, UNCALIBRATED

DASH = "\u2013"
SPACE = "\u00a0"

STAGE_WORDS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "receiving": ("Receiving", "busy", "instances still arrive"),
        "waiting": ("Waiting", "busy", "complete, waits for the network"),
        "working": ("Working", "busy", "in the network"),
        "sending": ("Sending", "busy", "results on their way"),
        "delivered": ("Delivered", "good", "proven at every target"),
        "done": ("Done", "good", "results ready"),
        "failed": ("Failed", "bad", "no result: needs a person"),
        "undelivered": ("Undelivered", "bad", "refused by a target: needs a person"),
        "ignored": ("Ignored", "calm", "no mammogram"),
        "superseded": ("Superseded", "calm", "replaced by a later one"),
        "discarded": ("Discarded", "calm", "given up by a person"),
    }
)
"""Stage -> what it is called, its kind (which colours it), and what it means."""

_KINDS: Mapping[str, str] = MappingProxyType(
    {
        **{name: kind for name, (_, kind, _) in STAGE_WORDS.items()},
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
        "way": visitor and visitor.way,
        "path": request.url.path,
    }
    return HTMLResponse(_environment().get_template(name).render({**shared, **values}), status)


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
        version=__version__, research_use=RESEARCH_USE, uncalibrated=UNCALIBRATED, stage_words=STAGE_WORDS, dash=DASH
    )
    environment.filters.update(
        clock=clock, day=day, span=span, ago=ago, size=size, kind=kind, score=score, count=count, plain=plain
    )
    return environment


def clock(at: float | None) -> str:
    """The time of day of a moment, UTC: "14:03:22"."""
    return DASH if at is None else time.strftime("%H:%M:%S", time.gmtime(at))


def day(at: float | None) -> str:
    """Date and time of a moment, UTC: "2026-03-01 14:03"."""
    return DASH if at is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))


def span(seconds: float | None) -> str:
    """How long, in one unit or two: "0.42 s", "14 s", "3 min", "2 h 5 min", "4 d 3 h"."""
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
    """Bytes in the unit that leaves one to four digits: "812 MB", in powers of a thousand as disks are sold."""
    if number is None:
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g}{SPACE}{unit}"
        number /= 1000
    return f"{number:.4g}{SPACE}TB"


def count(number: int) -> str:
    """With thin spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def score(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def kind(state: str) -> str:
    """Of a state of anything: good, busy, bad or calm."""
    return _KINDS.get(state, "calm")


def plain(value: object) -> str:
    """Any JSON value in one line."""
    if value in (None, "", [], {}):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)

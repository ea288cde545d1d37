"""What `doctor` says of one thing that it looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FAILS = "FAILS"

Processes = Mapping[str, Any]
"""Name -> component, of those that have said something lately."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line for the person who asks."""

    state: str
    """ok, note (nothing wrong, but look) or FAILS."""
    what: str
    found: str
    remedy: str = ""


def ok(what: str, found: str) -> Finding:
    return Finding(state="ok", what=what, found=found)


def note(what: str, found: str, remedy: str) -> Finding:
    return Finding(state="note", what=what, found=found, remedy=remedy)


def fails(what: str, found: str, remedy: str) -> Finding:
    return Finding(state=FAILS, what=what, found=found, remedy=remedy)

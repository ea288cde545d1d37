"""Result of one check of `doctor`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glam_deploy.appliance.state.overview import Component

FAILS = "FAILS"

Processes = Mapping[str, "Component"]
"""Name -> `overview.Component` with a recent heartbeat."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of the table that `doctor` prints."""

    state: str
    """ok, note (works, but should be looked at) or FAILS."""
    what: str
    found: str
    remedy: str = ""


def ok(what: str, found: str) -> Finding:
    return Finding(state="ok", what=what, found=found)


def note(what: str, found: str, remedy: str) -> Finding:
    return Finding(state="note", what=what, found=found, remedy=remedy)


def fails(what: str, found: str, remedy: str) -> Finding:
    return Finding(state=FAILS, what=what, found=found, remedy=remedy)

"""Outcomes of sending an object over C-STORE or STOW-RS, and the meaning of the status of a C-STORE response.

Source: PS3.4 table B.2-1, PS3.7 annex C.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol

SLOWEST = 1 << 18
"""Bytes per second: a transfer times out after `timeout_s` plus its size divided by this rate."""


SUCCESS = 0x0000
PENDING = (0xFF00, 0xFF01)
"""Status of a C-FIND response with a match (PS3.4 table C.4-1)."""
_WARNINGS = MappingProxyType(
    {
        0xB000: "coercion of data elements",
        0xB006: "elements discarded",
        0xB007: "data set does not match the SOP class",
    }
)
_FAILURES = MappingProxyType(
    {
        0x0122: "SOP class not supported",
        0x0124: "not authorized",
        0x0210: "duplicate invocation",
        0x0211: "unrecognized operation",
    }
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One result object to deliver, as a DICOM file (PS3.10)."""

    sop_uid: str
    path: Path


class Outcome(Enum):
    """Outcome of one object, from the response of the target."""

    STORED = "stored"
    """Success, or success with a warning (PS3.4 table B.2-1)."""
    REFUSED = "refused"
    """The target refuses this object, but perhaps accepts others."""
    NO_ROOM = "no room"
    """The target accepts no object at present (refused, out of resources)."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Outcome of one object with a readable `reason`, which has no identifier and is "" for success without warning."""

    sop_uid: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Commitment:
    """A storage commitment report (PS3.4 table J.3-2): UIDs of committed objects, and of those that failed."""

    transaction_uid: str
    committed: frozenset[str]
    failed: frozenset[str]


class Session(Protocol):
    """Connection to one target for one result set."""

    def __enter__(self) -> "Session": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def store(self, item: Item) -> Answer:
        """Send one object and wait for the response. Raises PeerBroke if there is none."""

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        """SOP Instance UIDs of `items` that a query of the target finds.

        Raises PeerBroke, or PeerDeclined if the target does not support the query.
        """

    def commit(self, items: Sequence[Item], transaction_uid: str, *, wait_s: float) -> Commitment | None:
        """Request storage commitment for `items`; None if no report is received within `wait_s` seconds."""


def stored(status: int) -> tuple[Outcome, str]:
    """Outcome and readable reason of a C-STORE status; the reason is "" for success without warning."""
    if status == SUCCESS:
        return Outcome.STORED, ""
    if status in (0x0001, 0x0107, 0x0116) or status >> 12 == 0xB:
        return Outcome.STORED, f"warning 0x{status:04X}" + _more(_WARNINGS.get(status))
    if status >> 8 == 0xA7:
        return Outcome.NO_ROOM, f"status 0x{status:04X}: out of resources"
    return Outcome.REFUSED, f"status 0x{status:04X}" + _more(_FAILURES.get(status) or _kind(status))


def _kind(status: int) -> str:
    kinds = {0xA9: "data set does not match the SOP class"}
    return kinds.get(status >> 8) or ("cannot understand the object" if status >> 12 == 0xC else "failure")


def _more(meaning: str | None) -> str:
    return f": {meaning}" if meaning else ""

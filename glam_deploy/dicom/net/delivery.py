"""Outcomes of sending an object over C-STORE or STOW-RS, and what the status of a C-STORE response means.

Source: PS3.4 table B.2-1, PS3.7 annex C.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol

SLOWEST = 1 << 18
"""Bytes a second: a large object is given so much more time than `timeout_s` before its target counts as hung."""


SUCCESS = 0x0000
PENDING = (0xFF00, 0xFF01)
"""Of C-FIND: one more match (PS3.4 table C.4-1)."""
_WARNINGS = MappingProxyType({0xB000: "changed elements", 0xB006: "dropped elements", 0xB007: "doubts the SOP class"})
_FAILURES = MappingProxyType(
    {
        0x0122: "it does not support the SOP class",
        0x0124: "we are not authorized",
        0x0210: "duplicate message",
        0x0211: "it does not know the operation",
    }
)


_TRANSACTION, _FAILED, _REFERENCED = 0x00081195, 0x00081198, 0x00081199


@dataclass(frozen=True, kw_only=True)
class Item:
    """One of our own objects, as a DICOM file (PS3.10)."""

    sop_uid: str
    path: Path


class Outcome(Enum):
    """What a target's answer says of one object."""

    STORED = "stored"
    """Success, or success with a warning (PS3.4 table B.2-1)."""
    REFUSED = "refused"
    """The target will not take this object; others it may."""
    NO_ROOM = "no room"
    """The target can take nothing now (refused, out of resources)."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer for one object; `reason` is for people, holds no identifier and is "" for a plain success."""

    sop_uid: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Commitment:
    """A storage commitment report (PS3.4 table J.3-2): UIDs taken into safe keeping, and those that were not."""

    transaction_uid: str
    committed: frozenset[str]
    failed: frozenset[str]


class Session(Protocol):
    """A conversation with one target about one result set."""

    def __enter__(self) -> "Session": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def store(self, item: Item) -> Answer:
        """Send one object and wait for its answer. Raises PeerBroke where none comes."""

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        """Those UIDs of `items` that the target says it has. Raises PeerBroke, PeerDeclined if it cannot be asked."""

    def commit(self, items: Sequence[Item], transaction_uid: str, *, wait_s: float) -> Commitment | None:
        """Ask the target to commit itself to keep `items`; None where its report has not come within `wait_s`."""


def stored(status: int) -> tuple[Outcome, str]:
    """Outcome of a C-STORE, and the reason in words; "" for a plain success."""
    if status == SUCCESS:
        return Outcome.STORED, ""
    if status in (0x0001, 0x0107, 0x0116) or status >> 12 == 0xB:
        return Outcome.STORED, f"warning 0x{status:04X}" + _more(_WARNINGS.get(status))
    if status >> 8 == 0xA7:
        return Outcome.NO_ROOM, f"status 0x{status:04X}: it is out of resources"
    return Outcome.REFUSED, f"status 0x{status:04X}" + _more(_FAILURES.get(status) or _kind(status))


def _kind(status: int) -> str:
    kinds = {0xA9: "the object does not match its SOP class"}
    return kinds.get(status >> 8) or ("it cannot understand the object" if status >> 12 == 0xC else "failure")


def _more(words: str | None) -> str:
    return f": {words}" if words else ""

"""The words in which both ways to send (C-STORE, STOW-RS) tell what became of an object."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Protocol

SLOWEST = 1 << 18
"""Bytes a second: a large object is given so much more time than `timeout_s` before its target counts as hung."""


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

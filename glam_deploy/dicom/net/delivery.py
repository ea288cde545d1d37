"""Delivery of our result objects: reading them, the outcome of sending each, and storage commitment (PS3.4 annex J).

Meanings of a C-STORE response's status: PS3.4 table B.2-1, PS3.7 annex C.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from glam_deploy.dicom.elements import ElementReader, Encoding
from glam_deploy.dicom.header import foreign_errors
from glam_deploy.dicom.streams import FileStream
from glam_deploy.errors import DicomError

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
_HEADER = ["SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"]


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


def whole(item: Item) -> Dataset:
    """The object with its pixels. Raises DicomError."""
    return _read(item, header_only=False)


def header(item: Item) -> Dataset:
    """SOPClassUID, StudyInstanceUID, SeriesInstanceUID and the file meta information. Raises DicomError."""
    return _read(item, header_only=True)


def series(items: Sequence[Item]) -> set[tuple[str, str]]:
    """(Study, Series Instance UID) of the items that can be read."""
    found = set()
    for item in items:
        try:
            dataset = header(item)
        except DicomError:
            continue
        found.add((str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)))
    return found


def unreadable(item: Item, error: DicomError) -> Answer:
    """In place of a target's answer."""
    return Answer(sop_uid=item.sop_uid, outcome=Outcome.REFUSED, reason=str(error))


def decompress(dataset: Dataset) -> None:
    """Explicit VR Little Endian in place; the same object, for every codec in our results is lossless."""
    with foreign_errors("the pixels cannot be decompressed"):
        dataset.decompress(generate_instance_uid=False)


def _read(item: Item, *, header_only: bool) -> Dataset:
    with foreign_errors("the file of the result cannot be read: has the data folder been changed?"):
        dataset = dcmread(item.path, specific_tags=_HEADER if header_only else None, stop_before_pixels=header_only)
        if missing := [keyword for keyword in _HEADER if keyword not in dataset]:
            raise DicomError(f"the file of the result lacks {', '.join(missing)}: has the data folder been changed?")
        return dataset


def request_of(objects: Iterable[tuple[str, str]], transaction_uid: str) -> Dataset:
    """Action information of N-ACTION for (SOP class, SOP instance) UIDs (PS3.4 table J.3-1)."""
    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    dataset.ReferencedSOPSequence = [_reference(*pair) for pair in objects]
    return dataset


def reported(event: Any) -> Dataset:
    """The event information of pynetdicom's `event`, for `read_report`, in bounded time. Raises DicomError."""
    encoded, syntax = event.request.EventInformation.getvalue(), UID(event.context.transfer_syntax)
    tags = (_TRANSACTION, _REFERENCED, _FAILED)
    stream = FileStream(BytesIO(encoded), 0, len(encoded))
    with foreign_errors("a storage commitment report is damaged"):
        return ElementReader(stream, Encoding.of(syntax), tags).through(_REFERENCED)


def read_report(dataset: Dataset) -> Commitment:
    """The event information of N-EVENT-REPORT (PS3.4 table J.3-2). Raises DicomError where it is damaged."""
    with foreign_errors("a storage commitment report is damaged"):
        return Commitment(
            transaction_uid=str(dataset.TransactionUID),
            committed=_uids(dataset, "ReferencedSOPSequence"),
            failed=_uids(dataset, "FailedSOPSequence"),
        )


def _reference(sop_class: str, sop_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
    return item


def _uids(dataset: Dataset, keyword: str) -> frozenset[str]:
    return frozenset(str(item.ReferencedSOPInstanceUID) for item in dataset.get(keyword) or [])

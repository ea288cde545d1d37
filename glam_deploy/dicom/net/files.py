"""Data sets for delivery: our own objects from their files, and storage commitment (PS3.4 annex J)."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from glam_deploy.dicom.elements import ElementReader, Encoding
from glam_deploy.dicom.header import foreign_errors
from glam_deploy.dicom.net.delivery import Answer, Commitment, Item, Outcome
from glam_deploy.dicom.streams import FileStream
from glam_deploy.errors import DicomError

_HEADER = ["SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"]


_TRANSACTION, _FAILED, _REFERENCED = 0x00081195, 0x00081198, 0x00081199


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

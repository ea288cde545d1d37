"""Data sets for delivery: result objects read from their files, and storage commitment (PS3.4 annex J)."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from glam_deploy.dicom.elements import ElementReader, Encoding
from glam_deploy.dicom.header import dicom_errors
from glam_deploy.dicom.net.delivery import Answer, Commitment, Item, Outcome
from glam_deploy.dicom.streams import FileStream
from glam_deploy.errors import DicomError

_UNREADABLE = "the file of the result cannot be read: check whether the data folder was changed"
_HEADER = ["SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"]

_TRANSACTION, _FAILED, _REFERENCED = 0x00081195, 0x00081198, 0x00081199


def content(item: Item) -> bytes:
    """The file as it is. Raises DicomError."""
    with dicom_errors(_UNREADABLE):
        return item.path.read_bytes()


def whole(item: Item) -> Dataset:
    """The complete object with its pixels. Raises DicomError."""
    return _read(item, header_only=False)


def header(item: Item) -> Dataset:
    """SOPClassUID, StudyInstanceUID, SeriesInstanceUID and the file meta information. Raises DicomError."""
    return _read(item, header_only=True)


def series(items: Sequence[Item]) -> set[tuple[str, str]]:
    """(Study Instance UID, Series Instance UID) of all readable items."""
    found = set()
    for item in items:
        try:
            dataset = header(item)
        except DicomError:
            continue
        found.add((str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)))
    return found


def unreadable(item: Item, error: DicomError) -> Answer:
    """Answer for an item that cannot be read, in place of a response of the target."""
    return Answer(sop_uid=item.sop_uid, outcome=Outcome.REFUSED, reason=str(error))


def decompress(dataset: Dataset) -> None:
    """Convert to Explicit VR Little Endian in place; keeps the UID, because result objects are compressed lossless."""
    with dicom_errors("the pixels cannot be decompressed"):
        dataset.decompress(generate_instance_uid=False)


def _read(item: Item, *, header_only: bool) -> Dataset:
    with dicom_errors(_UNREADABLE):
        dataset = dcmread(item.path, specific_tags=_HEADER if header_only else None, stop_before_pixels=header_only)
        if missing := [keyword for keyword in _HEADER if keyword not in dataset]:
            raise DicomError(
                f"the file of the result has no {', '.join(missing)}: check whether the data folder was changed"
            )
        return dataset


def request_of(objects: Iterable[tuple[str, str]], transaction_uid: str) -> Dataset:
    """Action Information of N-ACTION for (SOP Class UID, SOP Instance UID) pairs (PS3.4 table J.3-1)."""
    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    dataset.ReferencedSOPSequence = [_reference(*pair) for pair in objects]
    return dataset


def reported(event: Any) -> Dataset:
    """Event Information of a pynetdicom `event`, for `read_report`, parsed in bounded time. Raises DicomError."""
    encoded, syntax = event.request.EventInformation.getvalue(), UID(event.context.transfer_syntax)
    tags = (_TRANSACTION, _REFERENCED, _FAILED)
    stream = FileStream(BytesIO(encoded), 0, len(encoded))
    with dicom_errors("a storage commitment report is damaged"):
        return ElementReader(stream, Encoding.of(syntax), tags).read_through(_REFERENCED)


def read_report(dataset: Dataset) -> Commitment:
    """Convert the Event Information of N-EVENT-REPORT (PS3.4 table J.3-2). Raises DicomError if it is damaged."""
    with dicom_errors("a storage commitment report is damaged"):
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

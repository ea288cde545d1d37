"""Storage commitment (PS3.4 annex J): the request, and the report that answers it, in a data set each.

A target reports on the association of the request while that is open, or later on one of its own, which it opens to
the AE title that asked, that is to the appliance's own listener.
"""

from collections.abc import Iterable
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID

from glam_deploy.dicom.elements import ElementReader, Encoding
from glam_deploy.dicom.header import foreign_errors
from glam_deploy.dicom.net.delivery import Commitment
from glam_deploy.dicom.streams import FileStream

_TRANSACTION, _FAILED, _REFERENCED = 0x00081195, 0x00081198, 0x00081199


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

"""Classification of a received object from a bounded part of its header, so that no sender can exhaust resources."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID

from glam_deploy.dicom import acceptance, views
from glam_deploy.dicom.elements import PIXEL_DATA
from glam_deploy.dicom.header import KEYWORDS, Header, dicom_errors, read_header
from glam_deploy.dicom.part10 import open_data_set
from glam_deploy.dicom.read import silence_pydicom
from glam_deploy.errors import Caller, DicomError, NotForThisNetwork
from glam_deploy.records import UID_KEYWORDS, View

MAX_HEADER = 4 << 20
"""Largest number of bytes read or inflated to classify an object; elements that are not listed are skipped."""

_IDENTITY = ("SOPClassUID", *UID_KEYWORDS)
_URGENT = {"StudyPriorityID": ("HIGH",), "RequestedProcedurePriority": ("STAT", "HIGH")}
"""Keyword -> values of an urgent exam: (0032,000C) of DICOM 2001, PS3.3 section C.4.11."""
_PATIENT = ("PatientID", "IssuerOfPatientID")

State = Literal["candidate", "skipped", "refused"]


@dataclass(frozen=True, kw_only=True)
class Received:
    """Identity and classification of an object. UIDs of instance, study and series are as stored, perhaps invalid."""

    sop_class: str
    sop_uid: str
    study_uid: str
    series_uid: str
    is_mammogram: bool
    """Whether it is a Digital Mammography X-Ray image, whatever its state."""
    state: State
    """candidate: to be processed; skipped: valid, but not for GLAM; refused: damaged or against `acceptance`."""
    view: View | None = None
    """View of a candidate, or of another mammogram whose header states it."""
    reason: str = ""
    """Why it is not a candidate; contains no identifier."""
    urgent: bool = False
    """Whether its header states a high priority (`_URGENT`)."""
    patient: str = field(default="", repr=False)
    """Patient ID and its issuer, an identifier: never logged or shown."""


def examine(path: Path, *, for_processing: bool, caller: Caller = Caller.APPLIANCE) -> Received:
    """Classify the object in the DICOM file `path`, whose head `part10.write_head` wrote. Pixels are not read.

    `caller`: the program whose user reads `Received.reason`.

    Raises DicomError if the instance cannot be identified: no readable data set, no valid SOP class, or a UID of
    instance, study or series that is missing or not an identifier (`is_identifier`). Raises NotForThisNetwork for a
    DICOMDIR, which has no such UIDs.
    """
    silence_pydicom()
    with path.open("rb") as file:
        header = _Header(file)
        identity = header.read_through((*_PATIENT, *_IDENTITY))
        acceptance.require_no_directory(str(identity.file_meta.get("MediaStorageSOPClassUID") or ""))
        patient = "\0".join(_text(identity, keyword) for keyword in _PATIENT)
        uids = {keyword: _uid(identity, keyword) for keyword in _IDENTITY}
        is_mammogram = uids["SOPClassUID"] in (acceptance.FOR_PRESENTATION, acceptance.FOR_PROCESSING)
        urgent = False
        if is_mammogram:
            (view, state, reason), urgent = _classify(header, for_processing, caller)
        else:
            view, state, reason = _other_class(uids["SOPClassUID"])
    return Received(
        sop_class=uids["SOPClassUID"], sop_uid=uids["SOPInstanceUID"], study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"], is_mammogram=is_mammogram, state=state, view=view, reason=reason,
        patient=patient, urgent=urgent,
    )  # fmt: skip


_Classification = tuple[View | None, State, str]


def _classify(elements: "_Header", for_processing: bool, caller: Caller) -> tuple[_Classification, bool]:
    """The classification of a mammogram, and whether it is urgent."""
    view, urgent = None, False
    try:
        dataset = elements.read_through((*KEYWORDS, *_URGENT))
        urgent = any(_text(dataset, keyword).upper() in values for keyword, values in _URGENT.items())
        header = read_header(dataset)
        view = _stated_view(header)
        return (_accepted_view(header, for_processing), "candidate", ""), urgent
    except NotForThisNetwork as error:
        return (view, "skipped", error.message_for(caller)), urgent
    except DicomError as error:
        return (view, "refused", error.message_for(caller)), urgent


def _stated_view(header: Header) -> View | None:
    """The view that the header states, also of an image that is no candidate; None if it states none."""
    try:
        return views.view_of(header, None)
    except (DicomError, NotForThisNetwork):
        return None


def _other_class(sop_class: UID) -> _Classification:
    return None, "skipped", f"the object is {sop_class.name}: glam-deploy reads {acceptance.FOR_PRESENTATION.name}"


def _accepted_view(header: Header, for_processing: bool) -> View:
    acceptance.check(header, for_processing=for_processing)
    view = views.view_of(header, None)
    views.stored_orientation(header, view)
    return view


class _Header:
    """Reader of the elements of a DICOM file before its pixels; each is read once."""

    def __init__(self, file: BinaryIO) -> None:
        keywords = [*_PATIENT, *_IDENTITY, *KEYWORDS, *_URGENT]
        self._meta, self._reader = open_data_set(file, keywords, limit=MAX_HEADER, part="the header")

    def read_through(self, keywords: Sequence[str]) -> Dataset:
        """The elements up to the last one of `keywords`, with file meta information."""
        tags = [tag for keyword in keywords if (tag := tag_for_keyword(keyword)) and tag < PIXEL_DATA & 0xFFFF0000]
        with dicom_errors("the header is damaged or incomplete: export the object again"):
            dataset = self._reader.read_through(max(tags))
        dataset.file_meta = self._meta
        return dataset


def is_identifier(text: str) -> bool:
    """Whether `text` can identify an object: a UID, or an identifier of some archives such as 32 hex digits."""
    return re.fullmatch(r"(?!\.+\Z)[0-9A-Za-z._-]{1,128}", text) is not None


def _text(dataset: Dataset, keyword: str) -> str:
    """The value of an element without padding; "" if it is absent or cannot be read."""
    with suppress(DicomError), dicom_errors("the value cannot be read"):
        return str(dataset.get(keyword) or "").strip(" \0")
    return ""


def _uid(dataset: Dataset, keyword: str) -> UID:
    with dicom_errors(f"{keyword} cannot be read: export the object again"):
        uid = UID(str(dataset.get(keyword) or "").strip(" \0"))
    if not (uid.is_valid or (keyword in UID_KEYWORDS and is_identifier(uid))):
        raise DicomError(
            f"{keyword} is missing or not a valid UID (PS3.5 section 9.1): correct the object at its source"
        )
    return uid

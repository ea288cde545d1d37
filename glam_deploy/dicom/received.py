"""What a received object is, told from a bounded part of its header, so that no sender can make it costly."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID

from glam_deploy.dicom import acceptance, views
from glam_deploy.dicom.elements import PIXEL_DATA
from glam_deploy.dicom.header import KEYWORDS, UID_KEYWORDS, foreign_errors, read_header
from glam_deploy.dicom.part10 import open_data_set
from glam_deploy.dicom.read import hush_pydicom
from glam_deploy.errors import Caller, DicomError, NotForThisNetwork
from glam_deploy.records import View

MAX_HEADER = 4 << 20
"""Bytes that are read, or inflated, of an object to know what it is; what is not listed is passed over unread."""

_IDENTITY = ("SOPClassUID", *UID_KEYWORDS)

State = Literal["candidate", "skipped", "refused"]


@dataclass(frozen=True, kw_only=True)
class Received:
    """What an object says about itself. Instance, study and series are named as stored, which may be no valid UID."""

    sop_class: str
    sop_uid: str
    study_uid: str
    series_uid: str
    is_mammogram: bool
    """A Digital Mammography X-Ray image, whatever becomes of it."""
    state: State
    """To be worked on; sound but nothing for GLAM; broken or against the rules (see `acceptance`)."""
    view: View | None = None
    """Of a candidate."""
    reason: str = ""
    """Why it is no candidate; holds no identifier."""


def examine(path: Path, *, for_processing: bool) -> Received:
    """What lies in the DICOM file `path`, one that `part10.write_head` begins. Pixels are not read.

    Raises DicomError where it cannot be told which instance this is: no readable data set, no valid SOP class, or an
    identifier of instance, study or series that is missing or no identifier at all (`is_identifier`).
    """
    hush_pydicom()
    with path.open("rb") as file:
        header = _Header(file)
        identity = header.through(_IDENTITY)
        uids = {keyword: _uid(identity, keyword) for keyword in _IDENTITY}
        is_mammogram = uids["SOPClassUID"] in (acceptance.FOR_PRESENTATION, acceptance.FOR_PROCESSING)
        view, state, reason = _judged(header, for_processing) if is_mammogram else _other(uids["SOPClassUID"])
    return Received(
        sop_class=uids["SOPClassUID"], sop_uid=uids["SOPInstanceUID"], study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"], is_mammogram=is_mammogram, state=state, view=view, reason=reason,
    )  # fmt: skip


_Judgement = tuple[View | None, State, str]


def _judged(header: "_Header", for_processing: bool) -> _Judgement:
    try:
        return _accepted_view(header, for_processing), "candidate", ""
    except NotForThisNetwork as error:
        return None, "skipped", error.told(Caller.APPLIANCE)
    except DicomError as error:
        return None, "refused", error.told(Caller.APPLIANCE)


def _other(sop_class: UID) -> _Judgement:
    return None, "skipped", f"the object is {sop_class.name}: GLAM reads {acceptance.FOR_PRESENTATION.name}"


def _accepted_view(elements: "_Header", for_processing: bool) -> View:
    header = read_header(elements.through(KEYWORDS))
    acceptance.check(header, for_processing=for_processing)
    view = views.view_of(header, None)
    views.stored_mirrored(header, view)
    return view


class _Header:
    """Elements of a DICOM file before its pixels, each read once."""

    def __init__(self, file: BinaryIO) -> None:
        self._meta, self._reader = open_data_set(file, [*_IDENTITY, *KEYWORDS], limit=MAX_HEADER)

    def through(self, keywords: Sequence[str]) -> Dataset:
        """Up to the last element of `keywords`, with file meta."""
        tags = [tag for keyword in keywords if (tag := tag_for_keyword(keyword)) and tag < PIXEL_DATA & 0xFFFF0000]
        with foreign_errors("its header cannot be read: it is damaged or incomplete, export the object again"):
            dataset = self._reader.through(max(tags))
        dataset.file_meta = self._meta
        return dataset


def is_identifier(text: str) -> bool:
    """Whether `text` can name an object: a UID, or what some archives write in its place, such as 32 hex digits."""
    return re.fullmatch(r"(?!\.+\Z)[0-9A-Za-z._-]{1,128}", text) is not None


def _uid(dataset: Dataset, keyword: str) -> UID:
    with foreign_errors(f"{keyword} cannot be read: export the object again"):
        uid = UID(str(dataset.get(keyword) or "").strip(" \0"))
    if not (uid.is_valid or (keyword in UID_KEYWORDS and is_identifier(uid))):
        raise DicomError(f"{keyword} is missing or no valid UID (PS3.5 section 9.1): correct the object at its source")
    return uid

"""What a received object is, told from a bounded part of its header, so that no sender can make it costly."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal, cast

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from glam_deploy.dicom import acceptance, views
from glam_deploy.dicom.header import KEYWORDS, UID_KEYWORDS, foreign_errors, read_header
from glam_deploy.dicom.part10 import MAX_HEAD, read_head
from glam_deploy.dicom.read import hush_pydicom
from glam_deploy.errors import Caller, DicomError, NotForThisNetwork
from glam_deploy.records import View

MAX_HEADER = 4 << 20
"""Bytes that are read of an object to know what it is; private elements and pixels are passed over unread."""

_IDENTITY = ("SOPClassUID", *UID_KEYWORDS)

State = Literal["candidate", "skipped", "refused"]


@dataclass(frozen=True, kw_only=True)
class Received:
    """What an object says about itself; UIDs are valid ones."""

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

    Raises DicomError where it cannot be told which instance this is: no readable data set, or no valid UIDs.
    """
    hush_pydicom()
    with path.open("rb") as file:
        syntax, start = _begin(file)
        identity = _elements(file, start, syntax, _IDENTITY)
        uids = {keyword: _uid(identity, keyword) for keyword in _IDENTITY}
        is_mammogram = uids["SOPClassUID"] in (acceptance.FOR_PRESENTATION, acceptance.FOR_PROCESSING)
        view, state, reason = (
            _judged(file, start, syntax, for_processing) if is_mammogram else _other(uids["SOPClassUID"])
        )
    return Received(
        sop_class=uids["SOPClassUID"], sop_uid=uids["SOPInstanceUID"], study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"], is_mammogram=is_mammogram, state=state, view=view, reason=reason,
    )  # fmt: skip


_Judgement = tuple[View | None, State, str]


def _judged(file: BinaryIO, start: int, syntax: UID, for_processing: bool) -> _Judgement:
    try:
        return _accepted_view(file, start, syntax, for_processing), "candidate", ""
    except NotForThisNetwork as error:
        return None, "skipped", error.told(Caller.APPLIANCE)
    except DicomError as error:
        return None, "refused", error.told(Caller.APPLIANCE)


def _other(sop_class: UID) -> _Judgement:
    return None, "skipped", f"the object is {sop_class.name}: GLAM reads {acceptance.FOR_PRESENTATION.name}"


def _accepted_view(file: BinaryIO, start: int, syntax: UID, for_processing: bool) -> View:
    header = read_header(_elements(file, start, syntax, KEYWORDS))
    acceptance.check(header, for_processing=for_processing)
    view = views.view_of(header, None)
    views.stored_mirrored(header, view)
    return view


def _begin(file: BinaryIO) -> tuple[UID, int]:
    """The transfer syntax of a file, and where its data set begins."""
    head = read_head(file.read(MAX_HEAD))
    if head is None:
        raise DicomError("the file ends in its file meta information: send the object again")
    claim, start = head
    return UID(claim.transfer_syntax), start


def _elements(file: BinaryIO, start: int, syntax: UID, keywords: Sequence[str]) -> Dataset:
    """Those elements of `keywords` that stand before the pixels, with a file meta that names `syntax`."""
    tags = [tag for keyword in keywords if (tag := tag_for_keyword(keyword)) and tag < 0x7FE00000]
    last = max(tags)

    def beyond(tag: BaseTag, vr: str | None, length: int) -> bool:
        return int(tag) > last

    with foreign_errors("its header cannot be read: it is damaged or incomplete, export the object again"):
        file.seek(start)
        dataset = read_dataset(
            _inflated(file) if syntax == DeflatedExplicitVRLittleEndian else cast(BinaryIO, _Sparing(file)),
            is_implicit_VR=syntax.is_implicit_VR,
            is_little_endian=syntax.is_little_endian,
            stop_when=beyond,
            specific_tags=tags,
        )
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


class _Sparing:
    """A file of which no more than `MAX_HEADER` bytes can be read, wherever they lie."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, MAX_HEADER
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            raise EOFError
        return self._file.read(count)


def _inflated(file: BinaryIO) -> BinaryIO:
    """The first bytes of what is deflated in the rest of the file."""
    return BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(MAX_HEADER), MAX_HEADER))


def _uid(dataset: Dataset, keyword: str) -> UID:
    with foreign_errors(f"{keyword} cannot be read: export the object again"):
        uid = UID(str(dataset.get(keyword) or ""))
    if not uid.is_valid:
        raise DicomError(f"{keyword} is missing or no valid UID (PS3.5 section 9.1): correct the object at its source")
    return uid

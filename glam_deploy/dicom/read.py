"""A DICOM file -> Mammogram; a pydicom Dataset in memory -> the bytes of a DICOM file."""

import copy
import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID

from glam_deploy.dicom import acceptance, views
from glam_deploy.dicom.elements import BEFORE_PIXELS, PIXEL_DATA
from glam_deploy.dicom.header import KEYWORDS, Header, foreign_errors, read_header, settle
from glam_deploy.dicom.part10 import open_data_set
from glam_deploy.dicom.pixels import read_pixels
from glam_deploy.errors import DicomError, Remedy, UsageError, disk_reason
from glam_deploy.records import MAX_PIXELS, Mammogram, Notice, Source, View
from glam_deploy.regular import open_regular

MAX_BYTES = 4 * MAX_PIXELS
"""Bytes of one object that are read, or inflated where it is deflated: twice what so many pixels fill."""


def read_view(
    path: Path, *, for_processing: bool = False, view: View | None = None, horizontal_flip: bool = False
) -> Mammogram:
    """The mammogram in the DICOM file `path`.

    `for_processing` lets For Processing images pass. `view` and `horizontal_flip` (stored mirrored) complete missing
    and unknown tags and must not contradict those that are there. Pixels are uint8 (up to 8 bits stored) or uint16
    [rows, columns], source frame, no VOI LUT applied. `source.facts` holds transfer_syntax, bits_stored,
    imager_pixel_spacing_mm ([row, column] or None), photometric_interpretation, sop_class, presentation_intent and voi;
    field_of_view_horizontal_flip where it is told, laterality_from where that is "option". Raises DicomError or
    NotForThisNetwork (see `acceptance.check`, `views.view_of`), from the header alone wherever it tells, and
    BackendUnavailable where a decoder is not installed; no message holds an identifier.
    """
    hush_pydicom()
    with _opened(path) as file:
        parsed = _Parsed(file, KEYWORDS)
        header = read_header(parsed.through(BEFORE_PIXELS))
        notices = acceptance.check(header, for_processing=for_processing, view_is_given=view is not None)
        found = views.view_of(header, view)
        mirrored = views.stored_mirrored(header, found)
        if horizontal_flip and mirrored is False:
            raise DicomError("PatientOrientation says that the image is not stored mirrored", Remedy.NO_FLIP)
        # last: an object that is turned away may hold gigabytes of pixels
        dataset = parsed.through(PIXEL_DATA)
        settle(dataset, header)
        image = read_pixels(dataset, header)
    return Mammogram(
        pixels=image.pixels,
        view=found,
        horizontal_flip=horizontal_flip or bool(mirrored),
        source=Source(name=path.name, kind="dicom", uids=_valid_uids(header), facts=_facts(header)),
        notices=_with_one_loss((*notices, *image.notices, *_orientation_notices(header, mirrored))),
    )


def read_elements(path: Path, keywords: Sequence[str]) -> Dataset:
    """Those of the named elements that the DICOM file `path` holds, pixels never, with file meta. Raises DicomError."""
    hush_pydicom()
    with _opened(path) as file:
        return _Parsed(file, keywords).through(BEFORE_PIXELS)


def hush_pydicom() -> None:
    """From now on, in this process: pydicom neither warns nor logs, for both quote the values of elements.

    Not undone afterwards, which would not be safe between threads; set again at each call, for a host may reset it.
    """
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise DicomError(f"the file cannot be opened ({disk_reason(error)}): check its path and rights") from error


class _Parsed:
    """A DICOM file whose listed elements are read from its beginning, part by part."""

    def __init__(self, file: BinaryIO, keywords: Sequence[str]) -> None:
        self._meta, self._reader = open_data_set(file, keywords, limit=MAX_BYTES)

    def through(self, last: int) -> Dataset:
        """Those up to the tag `last`, with file meta."""
        with foreign_errors("not a readable DICOM file (PS3.10): it is damaged, incomplete or of another kind"):
            dataset = self._reader.through(last)
        dataset.file_meta = self._meta
        return dataset


def _valid_uids(header: Header) -> dict[str, str]:
    """What is no UID could be a name: it is left out."""
    return {keyword: uid for keyword, uid in header.uids.items() if UID(uid).is_valid}


def _with_one_loss(notices: tuple[Notice, ...]) -> tuple[Notice, ...]:
    """The header and the stream may both tell loss: one notice says what both do."""
    losses = [notice for notice in notices if notice.code == "lossy"]
    if len(losses) < 2:
        return notices
    one = replace(losses[0], message="; ".join(notice.message for notice in losses))
    return tuple(one if notice is losses[0] else notice for notice in notices if notice not in losses[1:])


def _facts(header: Header) -> dict[str, object]:
    intent = "FOR PROCESSING" if header.sop_class == acceptance.FOR_PROCESSING else "FOR PRESENTATION"
    told: dict[str, object] = {
        "transfer_syntax": header.transfer_syntax.name,
        "bits_stored": header.bits_stored,
        "imager_pixel_spacing_mm": None if header.spacing_mm is None else list(header.spacing_mm),
        "photometric_interpretation": header.photometric,
        "sop_class": header.sop_class.name,
        "presentation_intent": intent,
        "voi": "none",
    }
    if header.fov_flip:
        told["field_of_view_horizontal_flip"] = header.fov_flip
    if not (header.image_laterality or header.laterality):
        told["laterality_from"] = "option"
    return told


def _orientation_notices(header: Header, mirrored: bool | None) -> tuple[Notice, ...]:
    if mirrored is None:
        told = (
            f"PatientOrientation {header.unknown.get('PatientOrientation', 'is missing')}: the image is taken as "
            "stored upright, and mirrored only if the caller says"
        )
        return (Notice(code="orientation-unknown", message=told),)
    stored = "the image is stored mirrored (PatientOrientation): it is read as such"
    return (Notice(code="stored-mirrored", message=stored),) if mirrored else ()


def file_bytes(dataset: Dataset) -> bytes:
    """`dataset` in the DICOM file format (PS3.10 section 7.1), pixels as they are encoded in it; it is not changed.

    Raises UsageError where its file meta names no transfer syntax, DicomError where it cannot be encoded.
    """
    meta = getattr(dataset, "file_meta", None)
    if meta is None or not meta.get("TransferSyntaxUID"):
        raise UsageError(
            "the Dataset's file_meta has no TransferSyntaxUID, so its pixels cannot be decoded: set it, in a C-STORE "
            "handler of pynetdicom by `dataset.file_meta = event.file_meta`"
        )
    with foreign_errors("the Dataset cannot be written as a DICOM file"):
        whole = copy.copy(dataset)
        whole.preamble = bytes(128)
        whole.file_meta = copy.deepcopy(meta)
        whole.file_meta.FileMetaInformationGroupLength = 0  # filled in as it is written
        buffer = BytesIO()
        # not enforced: a view needs no instance UID to be read
        dcmwrite(buffer, whole, enforce_file_format=False)
        return buffer.getvalue()

"""A DICOM file -> Mammogram."""

import logging
import warnings
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from glam_deploy.dicom import acceptance, views
from glam_deploy.dicom.header import KEYWORDS, Header, foreign_errors, read_header
from glam_deploy.dicom.pixels import read_pixels
from glam_deploy.errors import DicomError
from glam_deploy.records import Mammogram, Notice, Source, View


def read_view(
    path: Path, *, for_processing: bool = False, view: View | None = None, horizontal_flip: bool = False
) -> Mammogram:
    """The mammogram in the DICOM file `path`.

    `for_processing` lets For Processing images pass. `view` and `horizontal_flip` (stored mirrored) complete missing
    tags and must not contradict those that are there. Pixels are uint8 (up to 8 bits stored) or uint16 [rows, columns],
    source frame, no VOI LUT applied. `source.facts` holds transfer_syntax, bits_stored, imager_pixel_spacing_mm
    ([row, column] or None), photometric_interpretation, sop_class, presentation_intent and voi. Raises DicomError or
    NotForThisNetwork (see `acceptance.check`, `views.view_of`); no message holds an identifier, for none is read.
    """
    _hush_pydicom()
    dataset = _open(path)
    header = read_header(dataset)
    notices = acceptance.check(header, for_processing=for_processing)
    found = views.view_of(header, view)
    mirrored = views.stored_mirrored(header, found)
    if horizontal_flip and mirrored is False:
        raise DicomError("PatientOrientation says that the image is not stored mirrored: leave horizontal_flip off")
    return Mammogram(
        pixels=read_pixels(dataset, header),
        view=found,
        horizontal_flip=horizontal_flip or bool(mirrored),
        source=Source(name=path.name, kind="dicom", uids=header.uids, facts=_facts(header)),
        notices=(*notices, *_orientation_notices(mirrored)),
    )


def _hush_pydicom() -> None:
    """From now on, in this process: pydicom neither warns nor logs, for both quote the values of elements.

    Not undone afterwards, which would not be safe between threads; set again at each call, for a host may reset it.
    """
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def _open(path: Path) -> Dataset:
    try:
        content = path.open("rb")
    except OSError as error:
        raise DicomError(f"the file cannot be opened ({type(error).__name__}): check its path and rights") from error
    with content, foreign_errors("not a readable DICOM file (PS3.10): it is damaged, incomplete or of another kind"):
        return dcmread(content, specific_tags=list(KEYWORDS))


def _facts(header: Header) -> dict[str, Any]:
    intent = "FOR PROCESSING" if header.sop_class == acceptance.FOR_PROCESSING else "FOR PRESENTATION"
    return {
        "transfer_syntax": header.transfer_syntax.name,
        "bits_stored": header.bits_stored,
        "imager_pixel_spacing_mm": None if header.spacing_mm is None else list(header.spacing_mm),
        "photometric_interpretation": header.photometric,
        "sop_class": header.sop_class.name,
        "presentation_intent": intent,
        "voi": "none",
    }


def _orientation_notices(mirrored: bool | None) -> tuple[Notice, ...]:
    if mirrored is None:
        told = (
            "PatientOrientation is missing: the image is taken as stored upright, and mirrored only if the caller says"
        )
        return (Notice(code="orientation-unknown", message=told),)
    stored = "the image is stored mirrored (PatientOrientation): it is read as such"
    return (Notice(code="stored-mirrored", message=stored),) if mirrored else ()

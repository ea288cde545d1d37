"""The attributes that decide how a mammogram is read, as plain values.

Only these are ever parsed: no element of the patient module is in the list. What a sender wrote into the wrong element
is not kept either, unless it is a defined term of that element, so no identifier can reach a message.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID

from glam_deploy.dicom.terms import DEFINED, UNDEFINED
from glam_deploy.errors import DicomError

Code = tuple[str, str]
"""(coding scheme designator, code value), both as stored."""

UID_KEYWORDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")

_TEXTS = {
    "modality": "Modality",
    "intent": "PresentationIntentType",
    "image_laterality": "ImageLaterality",
    "laterality": "Laterality",
    "view_position": "ViewPosition",
    "implant": "BreastImplantPresent",
    "partial_view": "PartialView",
    "lossy": "LossyImageCompression",
    "photometric": "PhotometricInterpretation",
    "lut_shape": "PresentationLUTShape",
}
_INTEGERS = {
    "rows": "Rows",
    "columns": "Columns",
    "samples": "SamplesPerPixel",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "high_bit": "HighBit",
    "signed": "PixelRepresentation",
    "frames": "NumberOfFrames",
    "padding": "PixelPaddingValue",
    "padding_limit": "PixelPaddingRangeLimit",
}
_NUMBERS = {
    "slope": "RescaleSlope",
    "intercept": "RescaleIntercept",
    "magnification": "EstimatedRadiographicMagnificationFactor",
}
_DECODER_KEYWORDS = ("PlanarConfiguration", "PixelData", "ExtendedOffsetTable")

KEYWORDS = (
    *UID_KEYWORDS, "SOPClassUID", "ImageType", "PatientOrientation", "ViewCodeSequence", "ViewModifierCodeSequence",
    "ModalityLUTSequence", "ImagerPixelSpacing", *_TEXTS.values(), *_INTEGERS.values(), *_NUMBERS.values(),
    *_DECODER_KEYWORDS, "ExtendedOffsetTableLengths",
)  # fmt: skip
"""Every element that is parsed; anything else in the file is passed over unread."""

# pydicom converts elements when they are touched, and a damaged one may end in any of these
FOREIGN = (
    ValueError, TypeError, AttributeError, LookupError, ArithmeticError, NotImplementedError, RuntimeError, EOFError,
    OSError, MemoryError, AssertionError, struct.error, zlib.error, BytesLengthException,
    InvalidDicomError,
)  # fmt: skip


@contextmanager
def foreign_errors(trouble: str) -> Iterator[None]:
    """Turn what pydicom or a decoder raises into DicomError(`trouble`), which names only the class of the original."""
    try:
        yield
    except FOREIGN as error:
        # not chained: pydicom quotes the bytes it stumbled on, any element's, and a logged traceback would show them
        raise DicomError(f"{trouble} ({type(error).__name__})") from None


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the rules of acceptance look at; an absent text is "", an absent number None.

    Code strings, from `modality` to `lut_shape` and `patient_orientation`, are `terms.DEFINED` or `terms.UNDEFINED`.
    """

    sop_class: UID
    transfer_syntax: UID
    uids: Mapping[str, str]
    """DICOM keyword -> UID, for `UID_KEYWORDS`."""
    image_type: Sequence[str]
    patient_orientation: Sequence[str]
    views: Sequence[Code]
    modifiers: Sequence[Code]
    modality: str
    intent: str
    image_laterality: str
    laterality: str
    view_position: str
    implant: str
    partial_view: str
    lossy: str
    photometric: str
    lut_shape: str
    rows: int | None
    columns: int | None
    samples: int | None
    bits_allocated: int | None
    bits_stored: int | None
    high_bit: int | None
    signed: int | None
    frames: int | None
    padding: int | None
    padding_limit: int | None
    slope: float | None
    intercept: float | None
    magnification: float | None
    modality_lut: bool
    spacing_mm: tuple[float, ...] | None
    """ImagerPixelSpacing: (row, column) spacing at the detector, in mm."""


def read_header(dataset: Dataset) -> Header:
    """Plain values of `dataset`, read from a file with its meta information; the pixels may be left out.

    Raises DicomError where an element cannot be read, is no DICOM code string (PS3.5 section 6.2) or no UID (section
    9.1).
    """
    with foreign_errors("an element of the DICOM header is damaged: export the object again from its archive"):
        return Header(
            sop_class=_uid(dataset, "SOPClassUID"),
            transfer_syntax=_uid(dataset.file_meta, "TransferSyntaxUID"),
            uids={keyword: str(_uid(dataset, keyword)) for keyword in UID_KEYWORDS},
            image_type=tuple(str(value) for value in _values(dataset, "ImageType")),
            patient_orientation=tuple(_code_strings(dataset, "PatientOrientation")),
            views=_codes(dataset, "ViewCodeSequence"),
            modifiers=_modifiers(dataset),
            modality_lut="ModalityLUTSequence" in dataset,
            spacing_mm=tuple(float(value) for value in _values(dataset, "ImagerPixelSpacing")) or None,
            **_singles(dataset),
        )


def _singles(dataset: Dataset) -> dict[str, Any]:
    texts = {name: _text(dataset, keyword) for name, keyword in _TEXTS.items()}
    integers = {name: _number(dataset, keyword, int) for name, keyword in _INTEGERS.items()}
    return texts | integers | {name: _number(dataset, keyword, float) for name, keyword in _NUMBERS.items()}


def _values(dataset: Dataset, keyword: str) -> list[Any]:
    """All values of an element; none where it is absent or empty."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]


def _single(dataset: Dataset, keyword: str) -> Any:
    values = _values(dataset, keyword)
    if len(values) > 1:
        raise DicomError(f"{keyword} has {len(values)} values, expected one: correct the object at its source")
    return values[0] if values else None


def _number(dataset: Dataset, keyword: str, kind: type[int] | type[float]) -> Any:
    value = _single(dataset, keyword)
    return None if value is None else kind(value)


def _uid(dataset: Dataset, keyword: str) -> UID:
    uid = UID(str(_single(dataset, keyword) or ""))
    if not uid.is_valid:
        raise DicomError(f"{keyword} is missing or no valid UID (PS3.5 section 9.1): export the object again")
    return uid


def _text(dataset: Dataset, keyword: str) -> str:
    return "".join(_code_strings(dataset, keyword)[:1]) if _single(dataset, keyword) is not None else ""


def _code_strings(dataset: Dataset, keyword: str) -> list[str]:
    texts = [str(value).strip(" ") for value in _values(dataset, keyword)]
    if not all(re.fullmatch(r"[A-Z0-9_ ]{0,16}", text) for text in texts):
        raise DicomError(
            f"{keyword} holds no DICOM code string, expected up to 16 of A-Z, 0-9, space and underscore (PS3.5 section "
            "6.2): correct the object at its source"
        )
    return [text if text in ("", *DEFINED[keyword]) else UNDEFINED for text in texts]


def _codes(dataset: Dataset, keyword: str) -> tuple[Code, ...]:
    items = dataset.get(keyword) or []
    return tuple((str(i.get("CodingSchemeDesignator", "")), str(i.get("CodeValue", ""))) for i in items)


def _modifiers(dataset: Dataset) -> tuple[Code, ...]:
    # the standard nests modifiers in the view's item (PS3.3 C.8.11.7); some senders also put them beside it
    holders = (*(dataset.get("ViewCodeSequence") or []), dataset)
    return tuple(code for holder in holders for code in _codes(holder, "ViewModifierCodeSequence"))

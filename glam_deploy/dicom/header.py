"""Header: the attributes that decide how a mammogram is read, as plain values.

Only these attributes are parsed; no element of the Patient module is among them. A value that is not a defined term of
its element is not kept, so no identifier that a sender wrote into the wrong element can reach a message. Such a value
is unknown (`Header.unknown`): it gives a notice and never refuses the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from glam_deploy.dicom.terms import Term
from glam_deploy.dicom.values import Elements
from glam_deploy.dicom.values import dicom_errors as dicom_errors  # noqa: PLC0414 (the package takes it from here)
from glam_deploy.errors import DicomError
from glam_deploy.records import UID_KEYWORDS

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
    "fov_flip": "FieldOfViewHorizontalFlip",
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
_REQUIRED = ("rows", "columns", "samples", "bits_allocated", "bits_stored", "high_bit", "signed")
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
"""Every element that is parsed; all others in the file are skipped."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """Attributes that the acceptance rules check; absent or unknown texts are "", absent or unknown numbers None.

    Code strings, from `modality` to `fov_flip` and `patient_orientation`, are terms of `terms.DEFINED`.
    """

    sop_class: UID
    transfer_syntax: UID
    uids: Mapping[str, str]
    """DICOM keyword of `UID_KEYWORDS` -> UID as stored, which may be invalid by PS3.5 section 9.1."""
    image_type: Sequence[str]
    patient_orientation: Sequence[str]
    """Direction of the rows and of the columns; empty if one of them is absent or unknown."""
    views: Sequence[Term]
    modifiers: Sequence[Term | None]
    """None for an item without a known code."""
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
    fov_flip: str
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
    unknown: Mapping[str, str] = field(default_factory=dict)
    """DICOM keyword -> why its value counts as absent, as a verb phrase: "is not a number"."""


def read_header(dataset: Dataset) -> Header:
    """The header of `dataset`, which has file meta information; PixelData may be absent.

    Raises DicomError if the SOP class or transfer syntax is missing, or if an element that is required to decode the
    pixels (`_REQUIRED`) is damaged.
    """
    with dicom_errors("the DICOM header is damaged: export the object again from its archive"):
        elements = Elements(dataset)
        return Header(
            sop_class=_valid("SOPClassUID", stored_sop_class(elements)),
            transfer_syntax=_transfer_syntax(dataset),
            uids={keyword: elements.uid(keyword) for keyword in UID_KEYWORDS},
            image_type=tuple(elements.texts("ImageType")),
            patient_orientation=elements.orientation(),
            views=elements.views(),
            modifiers=elements.modifiers(),
            modality_lut="ModalityLUTSequence" in dataset,
            spacing_mm=elements.spacing("ImagerPixelSpacing"),
            **_singles(elements),
            unknown=elements.unknown,
        )


def store_parsed_values(dataset: Dataset, header: Header) -> None:
    """Write the values of `header` into `dataset`, because a decoder would parse the stored ones by its own rules."""
    parsed: dict[str, object] = {_INTEGERS[name]: getattr(header, name) for name in _REQUIRED}
    parsed |= {"PhotometricInterpretation": header.photometric, "NumberOfFrames": header.frames or 1}
    for keyword, value in parsed.items():
        dataset.add_new(Tag(keyword), dictionary_VR(keyword).partition(" ")[0], value)


def _singles(elements: Elements) -> dict[str, Any]:
    texts = {name: elements.term(keyword) for name, keyword in _TEXTS.items()}
    integers = {name: elements.integer(word, required=name in _REQUIRED) for name, word in _INTEGERS.items()}
    return texts | integers | {name: elements.decimal(keyword) for name, keyword in _NUMBERS.items()}


def stored_sop_class(elements: Elements) -> str:
    """SOP class of the data set, or if that is missing, of the file meta information; "" if that is missing too."""
    return elements.uid("SOPClassUID") or str(elements.dataset.file_meta.get("MediaStorageSOPClassUID", ""))


def _transfer_syntax(dataset: Dataset) -> UID:
    return _valid("TransferSyntaxUID", Elements(dataset.file_meta).uid("TransferSyntaxUID"))


def _valid(keyword: str, text: str) -> UID:
    uid = UID(text.strip(" \0"))
    if not uid.is_valid:
        raise DicomError(f"{keyword} is missing or not a valid UID (PS3.5 section 9.1): export the object again")
    return uid

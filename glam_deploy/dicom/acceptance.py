"""The rules of acceptance: what is a mammogram that GLAM was made for, and in which words the rest is turned away."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    JPEGLSNearLossless,
    MediaStorageDirectoryStorage,
)

from glam_deploy.dicom.header import UID_KEYWORDS, Header
from glam_deploy.errors import DicomError, NotForThisNetwork, Remedy
from glam_deploy.records import MAX_PIXELS, Notice

FOR_PRESENTATION = DigitalMammographyXRayImageStorageForPresentation
FOR_PROCESSING = DigitalMammographyXRayImageStorageForProcessing

MAGNIFICATION_LIMIT = 1.2
"""Largest EstimatedRadiographicMagnificationFactor of a contact view; magnification views lie at 1.5 and above."""

_SPECIAL_IMAGES: Mapping[str, str] = MappingProxyType(
    {
        "TOMO": "part of a tomosynthesis acquisition",
        "GENERATED_2D": "a 2D image synthesized from other images",
        "CONTRAST": "part of a contrast-enhanced examination",
        "ADDITION": "part of a contrast-enhanced examination",
        "SUBTRACTION": "part of a contrast-enhanced examination",
        "ENERGY": "part of a contrast-enhanced examination",
        "RECOMBINED": "part of a contrast-enhanced examination",
        "STEREO": "part of a biopsy",
        "PREFIRE": "part of a biopsy",
        "POSTFIRE": "part of a biopsy",
        "POSTBIOPSY": "part of a biopsy",
        "POSTMARKER": "part of a biopsy",
    }
)
"""Parts of ImageType values 3 and later (PS3.3 C.8.11.7.1.4) that mark what is no conventional mammogram."""

_LUT_SHAPES = MappingProxyType({"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"})
"""PhotometricInterpretation -> the PresentationLUTShape that must stand beside it (PS3.3 C.8.11.3)."""


_TOLD_ELSEWHERE = ("PatientOrientation",)
"""Keywords whose unknown values have a notice of their own."""


def check(header: Header, *, for_processing: bool, view_is_given: bool = False) -> tuple[Notice, ...]:
    """Let an object pass, with what is to be noticed, or refuse it.

    A value that is no defined term of its element is unknown: it is noticed, and refuses nothing. One exception: a
    view modifier of an unknown code, or of none, is a modifier all the same, unless the user named the view
    (`view_is_given`).

    Raises NotForThisNetwork for a sound object of another kind: another SOP class, synthesized 2D, contrast, biopsy,
    any view modifier, magnification, an implant (displaced or not: none was in the training data's description).
    Raises DicomError for a For Processing image unless `for_processing`, for what contradicts the
    standard, and for more than `MAX_PIXELS` pixels.
    """
    _check_class(header, for_processing)
    _check_kind(header, view_is_given)
    _check_grey_scale(header)
    _check_bits(header)
    _check_size(header)
    return tuple(_notices(header))


def _check_class(header: Header, for_processing: bool) -> None:
    if header.sop_class == MediaStorageDirectoryStorage:
        raise NotForThisNetwork(
            "the object is a DICOMDIR, an index of the files beside it (PS3.3 annex F): give the folder that it lies "
            "in, or the files that it lists"
        )
    if header.sop_class not in (FOR_PRESENTATION, FOR_PROCESSING):
        raise NotForThisNetwork(f"the object is {header.sop_class.name}: GLAM reads {FOR_PRESENTATION.name}")
    if header.sop_class == FOR_PROCESSING and not for_processing:
        raise DicomError(
            "the image is For Processing, whose grey values GLAM did not learn, expected the For Presentation image; "
            "send that, or where you accept scores that may not be comparable",
            Remedy.FOR_PROCESSING,
        )
    expected = "FOR PRESENTATION" if header.sop_class == FOR_PRESENTATION else "FOR PROCESSING"
    if header.intent not in ("", expected):
        raise DicomError(f"PresentationIntentType is {header.intent}, the SOP class says {expected}: correct one")
    if header.modality not in ("", "MG"):
        raise DicomError(f"Modality is {header.modality}, the SOP class says MG: correct one")
    if (header.frames or 1) != 1:
        raise DicomError(f"NumberOfFrames is {header.frames}, expected 1 in this SOP class: send the frames apart")


def _check_kind(header: Header, view_is_given: bool) -> None:
    reasons = [why for value in header.image_type[2:] for part, why in _SPECIAL_IMAGES.items() if part in value.upper()]
    reasons += [f"taken with a view modifier ({term.meaning})" for term in header.modifiers if term]
    if header.implant == "YES":
        reasons.append("of a breast with an implant")
    if header.magnification is not None and not header.magnification <= MAGNIFICATION_LIMIT:
        reasons.append(f"magnified {header.magnification:g} times (contact views: up to {MAGNIFICATION_LIMIT})")
    if reasons:
        raise NotForThisNetwork(f"the image is {reasons[0]}: GLAM was made for conventional full views")
    if None in header.modifiers and not view_is_given:
        raise NotForThisNetwork(
            "the image is taken with a view modifier (an unknown modifier, outside CID 4015): GLAM was made for "
            "conventional full views; where it is one",
            Remedy.NAME_VIEW,
        )


def _check_grey_scale(header: Header) -> None:
    grey, shape = header.photometric, _LUT_SHAPES.get(header.photometric)
    if shape is None or header.samples != 1:
        raise DicomError(
            f"PhotometricInterpretation {_told(header, grey)} with {_number(header.samples)} samples a pixel "
            "(SamplesPerPixel), expected MONOCHROME1 or MONOCHROME2 with 1: send the original image, not a rendering"
        )
    if header.lut_shape not in ("", shape):
        raise DicomError(
            f"PresentationLUTShape is {header.lut_shape}, expected {shape} with {grey} (PS3.3 C.8.11.3.1): one of them "
            "says that the image is inverted, and viewers differ in which they follow. Have the wrong one corrected "
            "where the object comes from"
        )
    if header.slope not in (None, 1.0) or header.intercept not in (None, 0.0) or header.modality_lut:
        raise DicomError(
            f"rescale slope is {_factor(header.slope)}, intercept {_factor(header.intercept)}, and the object has "
            f"{'a' if header.modality_lut else 'no'} modality LUT: expected 1, 0 and none in a mammogram (PS3.3 "
            "C.8.11.3), send the image with its original pixels"
        )


def _factor(value: float | None) -> str:
    return "missing" if value is None else str(value)


def _told(header: Header, photometric: str) -> str:
    return f"is {photometric}" if photometric else header.unknown.get("PhotometricInterpretation", "is missing")


def _number(value: int | None) -> str:
    return "missing" if value is None else str(value)


def _check_bits(header: Header) -> None:
    allocated, stored, high = header.bits_allocated, header.bits_stored, header.high_bit
    if allocated not in (8, 16) or stored is None or not 6 <= stored <= allocated or high != stored - 1:
        told = ", ".join(map(_number, (allocated, stored, high)))
        raise DicomError(
            f"bits allocated, stored and high bit are {told}, expected 8 or 16, 6 to allocated, "
            "stored - 1 (PS3.3 C.8.11.3): correct the object at its source"
        )
    if header.signed not in (0, 1):
        raise DicomError(
            f"PixelRepresentation is {_number(header.signed)}, expected 0 or 1: correct the object at its source"
        )
    if header.signed == 1 and header.photometric == "MONOCHROME1":
        raise DicomError("pixels are signed, which as MONOCHROME1 cannot be inverted: send unsigned pixels")


def _check_size(header: Header) -> None:
    if not (header.rows and header.columns and 0 < header.rows * header.columns <= MAX_PIXELS):
        size = f"{header.rows} x {header.columns}{' (None: it is missing)' * (None in (header.rows, header.columns))}"
        raise DicomError(f"Rows x Columns is {size}, expected 1 to {MAX_PIXELS} pixels: export it again")


def _notices(header: Header) -> list[Notice]:
    found = []
    if header.partial_view == "YES":
        found.append(Notice(code="partial-view", message="the image shows a part of the breast (PartialView is YES)"))
    loss = _loss(header)
    if loss:
        found.append(Notice(code="lossy", message=loss))
    if header.sop_class == FOR_PROCESSING:
        found.append(Notice(code="for-processing", message="a For Processing image: scores may not be comparable"))
    return [*found, *_unknown_values(header), *_uid_notices(header)]


def _unknown_values(header: Header) -> Iterator[Notice]:
    for keyword, why in header.unknown.items():
        if keyword not in _TOLD_ELSEWHERE:
            yield Notice(code="unknown-value", message=f"{keyword} {why}: it counts as missing")


def _uid_notices(header: Header) -> Iterator[Notice]:
    wrong = [keyword for keyword in UID_KEYWORDS if not UID(header.uids[keyword]).is_valid]
    if wrong:
        verb = "is missing or no valid UID" if len(wrong) == 1 else "are missing or no valid UIDs"
        yield Notice(code="uid-invalid", message=f"{', '.join(wrong)} {verb} (PS3.5 section 9.1)")


def _loss(header: Header) -> str:
    """What is known of loss by compression; "" where there was none (PS3.3 C.7.6.1.1.5, PS3.5 A.4.3 and A.4.4)."""
    if header.lossy == "01":
        return "the pixels were compressed with loss (LossyImageCompression is 01)"
    syntax = header.transfer_syntax
    if syntax == JPEGLSNearLossless:
        return f"the pixels are compressed with loss (transfer syntax {syntax.name})"
    if syntax in (JPEG2000, HTJ2K) and header.lossy != "00":
        return f"loss by compression is possible (transfer syntax {syntax.name}, no word in LossyImageCompression)"
    return ""

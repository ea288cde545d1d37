"""Acceptance rules: the DICOM objects that the networks were made for, and the messages of all refusals."""

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

from glam_deploy.dicom.header import Header
from glam_deploy.errors import DicomError, NotForThisNetwork, Remedy
from glam_deploy.records import MAX_PIXELS, UID_KEYWORDS, Notice

FOR_PRESENTATION = DigitalMammographyXRayImageStorageForPresentation
FOR_PROCESSING = DigitalMammographyXRayImageStorageForProcessing

MAGNIFICATION_LIMIT = 1.2
"""Largest EstimatedRadiographicMagnificationFactor of a contact view; magnification views have 1.5 and more."""

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
"""Substrings of ImageType values 3 and later (PS3.3 C.8.11.7.1.4) that exclude an image from processing."""

_LUT_SHAPES = MappingProxyType({"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"})
"""PhotometricInterpretation -> the PresentationLUTShape that it requires (PS3.3 C.8.11.3)."""


_SEPARATE_NOTICE = ("PatientOrientation",)
"""Keywords whose unknown values have a notice of their own code."""


def check(header: Header, *, for_processing: bool, view_is_given: bool = False) -> tuple[Notice, ...]:
    """Check an object against the acceptance rules; returns the notices for its result.

    A value that is not a defined term of its element is unknown: it gives a notice and refuses nothing. One exception:
    a view modifier with an unknown code, or without a code, still counts as a modifier, unless the user named the view
    (`view_is_given`).

    Raises NotForThisNetwork for a valid object of another kind: another SOP class, synthesized 2D, contrast, biopsy,
    any view modifier, magnification, an implant (displaced or not, because the description of the training data has
    none), a For Processing image unless `for_processing`. Raises DicomError for contradictions to the standard, and for
    more than `MAX_PIXELS` pixels.
    """
    _check_class(header, for_processing)
    _check_kind(header, view_is_given)
    _check_grey_scale(header)
    _check_bits(header)
    _check_size(header)
    return tuple(_notices(header))


def check_grey(header: Header) -> None:
    """Check only what decoding needs: one grey image, with bits and a size that are read. Raises DicomError."""
    if (header.frames or 1) != 1:
        raise DicomError(f"NumberOfFrames is {header.frames}, expected 1: export each frame as an object")
    _check_grey_scale(header)
    _check_bits(header)
    _check_size(header)


def require_no_directory(sop_class: str) -> None:
    """Raises NotForThisNetwork if the SOP class is Media Storage Directory."""
    if sop_class == MediaStorageDirectoryStorage:
        raise NotForThisNetwork(
            "the object is a DICOMDIR, an index of other files (PS3.3 annex F): give the folder that contains it, or "
            "the files that it lists"
        )


def _check_class(header: Header, for_processing: bool) -> None:
    require_no_directory(header.sop_class)
    if header.sop_class not in (FOR_PRESENTATION, FOR_PROCESSING):
        raise NotForThisNetwork(f"the object is {header.sop_class.name}: glam-deploy reads {FOR_PRESENTATION.name}")
    if header.sop_class == FOR_PROCESSING and not for_processing:
        raise NotForThisNetwork(
            "the image is For Processing, but the networks were trained on For Presentation images only: send the For "
            "Presentation image, or, if you accept scores that may not be comparable",
            Remedy.FOR_PROCESSING,
        )
    expected = "FOR PRESENTATION" if header.sop_class == FOR_PRESENTATION else "FOR PROCESSING"
    if header.intent not in ("", expected):
        raise DicomError(
            f"PresentationIntentType is {header.intent}, the SOP class requires {expected}: correct one of them"
        )
    if header.modality not in ("", "MG"):
        raise DicomError(f"Modality is {header.modality}, the SOP class requires MG: correct one of them")
    if (header.frames or 1) != 1:
        raise DicomError(
            f"NumberOfFrames is {header.frames}, expected 1 in this SOP class: send each frame as an object"
        )


def _check_kind(header: Header, view_is_given: bool) -> None:
    reasons = [why for value in header.image_type[2:] for part, why in _SPECIAL_IMAGES.items() if part in value.upper()]
    reasons += [f"taken with a view modifier ({term.meaning})" for term in header.modifiers if term]
    if header.implant == "YES":
        reasons.append("of a breast with an implant")
    if header.magnification is not None and not header.magnification <= MAGNIFICATION_LIMIT:
        reasons.append(f"magnified {header.magnification:g} times (contact views: up to {MAGNIFICATION_LIMIT})")
    if reasons:
        raise NotForThisNetwork(f"the image is {reasons[0]}: the networks were made for conventional full views")
    if None in header.modifiers and not view_is_given:
        raise NotForThisNetwork(
            "the image is taken with a view modifier (an unknown modifier, outside CID 4015): the networks were made "
            "for conventional full views; if it is such a view",
            Remedy.NAME_VIEW,
        )


def _check_grey_scale(header: Header) -> None:
    grey, shape = header.photometric, _LUT_SHAPES.get(header.photometric)
    if shape is None or header.samples != 1:
        raise DicomError(
            f"PhotometricInterpretation {_describe_photometric(header)} with {_number(header.samples)} samples per "
            "pixel (SamplesPerPixel), expected MONOCHROME1 or MONOCHROME2 with 1: send the original image, not a "
            "rendering"
        )
    if header.lut_shape not in ("", shape):
        raise DicomError(
            f"PresentationLUTShape is {header.lut_shape}, expected {shape} with {grey} (PS3.3 C.8.11.3.1): only one of "
            "them states an inverted image, and viewers differ in which one they follow. Correct the wrong one at the "
            "source of the object"
        )
    if header.slope not in (None, 1.0) or header.intercept not in (None, 0.0) or header.modality_lut:
        raise DicomError(
            f"rescale slope is {_number(header.slope)}, intercept {_number(header.intercept)}, and the object has "
            f"{'a' if header.modality_lut else 'no'} modality LUT; expected 1, 0 and none in a mammogram (PS3.3 "
            "C.8.11.3): send the image with its original pixels"
        )


def _describe_photometric(header: Header) -> str:
    if header.photometric:
        return f"is {header.photometric}"
    return header.unknown.get("PhotometricInterpretation", "is missing")


def _number(value: float | None) -> str:
    return "missing" if value is None else str(value)


def _check_bits(header: Header) -> None:
    allocated, stored, high = header.bits_allocated, header.bits_stored, header.high_bit
    if allocated not in (8, 16) or stored is None or not 6 <= stored <= allocated or high != stored - 1:
        values = ", ".join(map(_number, (allocated, stored, high)))
        raise DicomError(
            f"BitsAllocated, BitsStored and HighBit are {values}; expected 8 or 16, 6 to BitsAllocated, BitsStored - 1 "
            "(PS3.3 C.8.11.3): correct the object at its source"
        )
    if header.signed not in (0, 1):
        raise DicomError(
            f"PixelRepresentation is {_number(header.signed)}, expected 0 or 1: correct the object at its source"
        )
    if header.signed == 1 and header.photometric == "MONOCHROME1":
        raise DicomError(
            "PixelRepresentation is 1 (signed) with MONOCHROME1, which cannot be inverted: send unsigned pixels"
        )


def _check_size(header: Header) -> None:
    if not (header.rows and header.columns and 0 < header.rows * header.columns <= MAX_PIXELS):
        size = f"{header.rows} x {header.columns}{' (None: it is missing)' * (None in (header.rows, header.columns))}"
        raise DicomError(f"Rows x Columns is {size}, expected 1 to {MAX_PIXELS} pixels: export it again")


def _notices(header: Header) -> list[Notice]:
    notices = []
    if header.partial_view == "YES":
        message = "the image shows only a part of the breast (PartialView is YES)"
        notices.append(Notice(code="partial-view", message=message))
    loss = _lossy_compression(header)
    if loss:
        notices.append(Notice(code="lossy", message=loss))
    if header.sop_class == FOR_PROCESSING:
        message = "the image is For Processing: scores may not be comparable"
        notices.append(Notice(code="for-processing", message=message))
    return [*notices, *_unknown_values(header), *_uid_notices(header)]


def _unknown_values(header: Header) -> Iterator[Notice]:
    for keyword, why in header.unknown.items():
        if keyword not in _SEPARATE_NOTICE:
            yield Notice(code="unknown-value", message=f"{keyword} {why}: it counts as missing")


def _uid_notices(header: Header) -> Iterator[Notice]:
    wrong = [keyword for keyword in UID_KEYWORDS if not UID(header.uids[keyword]).is_valid]
    if wrong:
        verb = "is missing or not a valid UID" if len(wrong) == 1 else "are missing or not valid UIDs"
        yield Notice(code="uid-invalid", message=f"{', '.join(wrong)} {verb} (PS3.5 section 9.1)")


def _lossy_compression(header: Header) -> str:
    """Description of certain or possible lossy compression, else "" (PS3.3 C.7.6.1.1.5, PS3.5 A.4.3 and A.4.4)."""
    if header.lossy == "01":
        return "the pixels were compressed with loss (LossyImageCompression is 01)"
    syntax = header.transfer_syntax
    if syntax == JPEGLSNearLossless:
        return f"the pixels are compressed with loss (transfer syntax {syntax.name})"
    if syntax in (JPEG2000, HTJ2K) and header.lossy != "00":
        return f"lossy compression is possible (transfer syntax {syntax.name}, LossyImageCompression is not stated)"
    return ""

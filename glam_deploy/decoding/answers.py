"""Answer of a process that has read an image, and its bounds.

The image may have taken the process over. Its answer goes into reports, tables, logs and databases, so each value must
be one that reading an image can give: texts of printable characters and of a bounded length, known names, numbers in
their range. Every other answer raises ValueError or KeyError, whose text quotes nothing of it.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from glam_deploy.errors import (
    BackendUnavailable,
    DicomError,
    GlamError,
    IncompleteObject,
    InputError,
    InternalError,
    NotForThisNetwork,
    Remedy,
)
from glam_deploy.records import MAX_PIXELS, PATIENT_KEYWORDS, UID_KEYWORDS, Mammogram, Notice, Pixels, Source, View

LONGEST_TEXT = 2000
"""Characters of a text; messages of errors and notices have a few hundred."""
MOST_NOTICES = 32
"""There are fewer kinds of notices."""
_REFUSALS: Mapping[str, type[GlamError]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (InputError, DicomError, IncompleteObject, NotForThisNetwork, BackendUnavailable, InternalError)
    }
)
"""The errors of reading an image; others, such as the loss of a GPU, mean more than one image to a caller."""
_ITEM_SIZES: Mapping[str, int] = MappingProxyType({"|u1": 1, "<u2": 2, "<f4": 4})
"""Type of pixels -> bytes of each."""
_PICTURES = ("png", "tiff", "npy")
"""`Source.kind` of files without a header."""
_NOTICE_CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_UID = re.compile(r"[0-9.]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()


def _is_spacing(value: object) -> bool:
    """[row, column] in mm, or None."""
    if value is None:
        return True
    return isinstance(value, list) and len(value) == 2 and all(type(each) is float and each > 0 for each in value)


_FACTS: Mapping[str, Callable[[object], bool]] = MappingProxyType(
    {
        "transfer_syntax": _is_text,
        "bits_stored": lambda value: type(value) is int and 1 <= value <= 16,
        "imager_pixel_spacing_mm": _is_spacing,
        "photometric_interpretation": _is_text,
        "sop_class": _is_text,
        "presentation_intent": _is_text,
        "voi": _is_text,
    }
)
"""Facts of every DICOM image, as of `dicom.read.read_view` -> whether a value is one of them."""
_MORE_FACTS = ("field_of_view_horizontal_flip", "laterality_from")
"""Texts among the facts of some."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An error in place of an image."""

    kind: str
    """Name of its class in `glam_deploy.errors`."""
    message: str
    remedies: tuple[str, ...]
    """Names of its remedies."""

    @classmethod
    def of(cls, error: GlamError) -> "Refusal":
        """Characters that are not printable, which decoders quote from damaged files, are written as escapes."""
        message = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(error.args[0]))
        if len(message) > LONGEST_TEXT:
            message = f"{message[: LONGEST_TEXT - 3]}..."
        return cls(kind=type(error).__name__, message=message, remedies=tuple(each.name for each in error.remedies))

    def error(self) -> GlamError:
        """Raises KeyError for names that are not there, ValueError for texts out of bounds."""
        remedies = {name: Remedy[name] for name in self.remedies}
        _require(_is_text(self.message) and len(remedies) == len(self.remedies), "a refusal")
        return _REFUSALS[self.kind](self.message, *remedies.values())


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a process says of an image: that it was refused, or all but the pixels, whose descriptor comes with it."""

    refusal: Refusal | None = None
    view: str = ""
    horizontal_flip: bool = False
    half_turn: bool = False
    source: Source | None = None
    notices: tuple[Notice, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = ""

    @classmethod
    def of(cls, mammogram: Mammogram) -> "Answer":
        return cls(
            view=mammogram.view.value,
            horizontal_flip=mammogram.horizontal_flip,
            half_turn=mammogram.half_turn,
            source=mammogram.source,
            notices=mammogram.notices,
            shape=mammogram.pixels.shape,
            dtype=mammogram.pixels.dtype.str,
        )

    def byte_count(self) -> int:
        """Bytes of the pixels. Raises KeyError and ValueError for a type and shape that no image has."""
        _require(len(self.shape) == 2 and min(self.shape) > 0 and math.prod(self.shape) <= MAX_PIXELS, "the shape")
        return _ITEM_SIZES[self.dtype] * math.prod(self.shape)

    def mammogram(self, pixels: Pixels, name: str) -> Mammogram:
        """`name`: `Source.name`, which the caller knows. Raises ValueError for values that no image has."""
        source = self.source
        if source is None:
            raise ValueError("the answer has no source")
        _require(_is_dicom(source) if source.kind == "dicom" else _is_picture(source), "the source")
        _require(len(self.notices) <= MOST_NOTICES and all(map(_is_notice, self.notices)), "a notice")
        return Mammogram(
            pixels=pixels,
            view=View(self.view),
            horizontal_flip=self.horizontal_flip,
            half_turn=self.half_turn,
            source=replace(source, name=name),
            notices=self.notices,
        )


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"{what} of the answer is out of bounds")


def _is_notice(notice: Notice) -> bool:
    return _is_text(notice.code) and _NOTICE_CODE.fullmatch(notice.code) is not None and _is_text(notice.message)


def _is_picture(source: Source) -> bool:
    return source.kind in _PICTURES and not (source.uids or source.facts or source.patient)


def _is_dicom(source: Source) -> bool:
    uids_fit = all(keyword in UID_KEYWORDS and _UID.fullmatch(uid) for keyword, uid in source.uids.items())
    facts = dict(source.facts)
    more_fit = all(_is_text(facts.pop(name, "")) for name in _MORE_FACTS)
    facts_fit = facts.keys() == _FACTS.keys() and all(is_one(facts[name]) for name, is_one in _FACTS.items())
    patient_fits = tuple(keyword for keyword, _ in source.patient) == PATIENT_KEYWORDS and all(
        _SHA256.fullmatch(digest) for _, digest in source.patient
    )
    return uids_fit and more_fit and facts_fit and patient_fits

"""Parsing of single elements of a data set; a value that cannot be parsed is recorded as unknown and raises no error.

The value of an unknown element is never kept or shown, because it could be a name.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.valuerep import PersonName

from glam_deploy.decimals import decimal
from glam_deploy.dicom.terms import DEFINED, MODIFIER_OF, VIEW_OF, Term
from glam_deploy.errors import DicomError

# pydicom converts an element at its first access, and a damaged element may raise any of these
LIBRARY_ERRORS = (
    ValueError, TypeError, AttributeError, LookupError, ArithmeticError, NotImplementedError, RuntimeError, EOFError,
    OSError, MemoryError, AssertionError, struct.error, zlib.error, BytesLengthException,
    InvalidDicomError,
)  # fmt: skip

_KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (MemoryError, "there is not enough memory"),
    ((EOFError, struct.error, BytesLengthException), "a value is too short"),
    (NotImplementedError, "its format is not supported"),
    (InvalidDicomError, "it is not a DICOM file"),
    (OSError, "it cannot be read"),
    (zlib.error, "it cannot be inflated"),
)

NO_TERM = "holds a value that is not a defined term"
NO_CODE_STRING = "does not hold a DICOM code string (PS3.5 section 6.2), so not a defined term"
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{0,16}")
_DAMAGED = "cannot be read"
_PADDING = " \0"
_PRIORITY: Mapping[str, str] = {"BreastImplantPresent": "YES", "PartialView": "YES", "LossyImageCompression": "01"}
"""Keyword -> term that has priority over all other values of the element. Any word of `_YES` means this term, whatever
text follows ("YES BILATERAL"), because an added remark must not hide a reason for refusal or notice."""
_YES = frozenset({"YES", "Y", "TRUE", "T", "1", "JA", "OUI", "SI", "SIM"})
_LEADING_WORD = re.compile(r"[A-Z0-9]+")
_LEADING_NUMBER = re.compile(r"[Xx]?\s*(\d{1,3}(?:\.\d+)?)(?!-?[\d./])\s*(%?)")
"""At most three digits, not part of a date: a message may quote this number, and must not quote an identifier."""
_CODES = ("CodeValue", "LongCodeValue", "URNCodeValue")
_NO_CONTENT = frozenset({"CodingSchemeDesignator", "CodingSchemeVersion", "ViewModifierCodeSequence"})
"""Attributes of an item that do not state a code: the scheme only names a dictionary (PS3.3 table 8.8-1), so an item
with a scheme alone counts as empty."""


@contextmanager
def dicom_errors(message: str) -> Iterator[None]:
    """Convert exceptions of pydicom or a decoder to DicomError.

    `message`: what is wrong, and after a colon what to do. The kind of the exception is inserted before the colon.
    """
    try:
        yield
    except LIBRARY_ERRORS as error:
        # not chained: pydicom quotes bytes of any element, and a logged traceback would show them
        what, colon, remedy = message.partition(": ")
        raise DicomError(f"{what} ({_describe(error)}){colon}{remedy}") from None


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return next((text for kinds, text in _KINDS if isinstance(error, kinds)), "a value is invalid")


class Elements:
    """Reads elements of one data set; `unknown` maps each keyword that could not be parsed to the reason."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.unknown: dict[str, str] = {}

    def values(self, keyword: str, dataset: Dataset | None = None) -> list[Any]:
        """All values of an element; an empty list if it is absent, empty or damaged."""
        try:
            value = (self.dataset if dataset is None else dataset).get(keyword)
        except LIBRARY_ERRORS:
            self.unknown[keyword] = _DAMAGED
            return []
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        if value is None or value == "":
            return []
        return list(value) if hasattr(value, "__iter__") and not isinstance(value, str | PersonName) else [value]

    def texts(self, keyword: str, dataset: Dataset | None = None) -> list[str]:
        """All values as texts, without padding of any length."""
        values = self.values(keyword, dataset)
        # an element with a wrong VR is parsed as one text
        split = str(values[0]).split("\\") if len(values) == 1 else values
        return [str(value).strip(_PADDING) for value in split]

    def terms(self, keyword: str) -> list[str]:
        """All values of a code string in upper case; an empty list if one is not a defined term of the element.

        A term of `_PRIORITY` is returned in any case.
        """
        found = [_priority_term(keyword, text.upper()) for text in self.texts(keyword)]
        if any(text not in ("", *DEFINED[keyword]) for text in found):
            is_code_string = all(_CODE_STRING.fullmatch(text) for text in found)
            self.unknown[keyword] = NO_TERM if is_code_string else NO_CODE_STRING
            return [_PRIORITY[keyword]] if _PRIORITY.get(keyword) in found else []
        return found

    def term(self, keyword: str) -> str:
        """The single value of a code string; "" if it is absent or unknown."""
        found = set(self.terms(keyword)) - {""}
        if _PRIORITY.get(keyword) in found:
            return _PRIORITY[keyword]
        if len(found) > 1:
            self.unknown[keyword] = f"has {len(found)} values instead of one"
            return ""
        return "".join(found)

    def orientation(self) -> tuple[str, ...]:
        """The two terms of PatientOrientation; empty if it is absent or if a term is missing or unknown."""
        found = self.terms("PatientOrientation")
        if len(found) == 2 and all(found):
            return tuple(found)
        if any(found):
            self.unknown["PatientOrientation"] = "is not two values, for rows and columns (PS3.3 C.7.6.1.1.1)"
        return ()

    def integer(self, keyword: str, *, required: bool = False) -> int | None:
        """One integer, or None. Raises DicomError if a `required` element is present and not one integer."""
        found = self._number(keyword)
        if found is not None and not found.is_integer():
            self.unknown[keyword] = "is not an integer"
        if required and keyword in self.unknown:
            raise DicomError(
                f"{keyword} {self.unknown[keyword]}, expected one integer: export the object again from its archive"
            )
        return None if found is None or keyword in self.unknown else int(found)

    def decimal(self, keyword: str) -> float | None:
        """One number, or None.

        A value with a decimal comma or a unit ("1,8", "1.8x", "180%") is invalid by the standard. It is recorded as
        unknown but still converted, because a typing error must not disable a refusal.
        """
        return self._number(keyword, lenient=True)

    def spacing(self, keyword: str) -> tuple[float, ...] | None:
        """Two numbers above 0, or None."""
        values = [decimal(text) for text in self.texts(keyword)]
        good = tuple(value for value in values if value is not None and value > 0)
        if values and (len(values) != 2 or len(good) != 2):
            self.unknown[keyword] = "is not two numbers above 0 (PS3.5 section 6.2)"
        return None if keyword in self.unknown or not values else good

    def uid(self, keyword: str) -> str:
        """The text of a UID, valid or not, without padding; "" if it is absent."""
        return "\\".join(self.texts(keyword))

    def views(self) -> tuple[Term, ...]:
        """The known terms of ViewCodeSequence, without repeats."""
        return tuple(dict.fromkeys(term for term in self._coded("ViewCodeSequence", VIEW_OF, 4014) if term))

    def modifiers(self) -> tuple[Term | None, ...]:
        """The terms of ViewModifierCodeSequence, None for each that is unknown."""
        # the standard nests modifiers in the item of the view (PS3.3 C.8.11.7); some senders put them at the top level
        holders = (*self._items("ViewCodeSequence"), self.dataset)
        return tuple(
            term for holder in holders for term in self._coded("ViewModifierCodeSequence", MODIFIER_OF, 4015, holder)
        )

    def _coded(
        self, keyword: str, known: Mapping[tuple[str, str], Term], cid: int, holder: Dataset | None = None
    ) -> Iterator[Term | None]:
        """The terms of each item that is not empty, None for an item without a term of context group `cid` (PS3.16)."""
        for item in self._items(keyword, holder):
            scheme = "\\".join(self.texts("CodingSchemeDesignator", item))
            codes = {part: "\\".join(self.texts(part, item)) for part in _CODES}
            terms = dict.fromkeys(known[scheme, code] for code in codes.values() if (scheme, code) in known)
            held = [part for part, code in codes.items() if code]
            content = held or _content(item)
            if held and not terms:
                where = "" if held == ["CodeValue"] else f", in {' and '.join(held)}"
                self.unknown[keyword] = f"holds a code outside CID {cid} (SCT, SRT, SNM3){where}"
            elif content and not terms:
                self.unknown[keyword] = f"holds no code, only {' and '.join(content)}"
            if content:
                yield from terms or (None,)

    def _items(self, keyword: str, holder: Dataset | None = None) -> list[Dataset]:
        values = self.values(keyword, holder)
        if any(not isinstance(value, Dataset) for value in values):
            self.unknown[keyword] = _DAMAGED
            return []
        return values

    def _number(self, keyword: str, *, lenient: bool = False) -> float | None:
        texts = [text for text in self._number_texts(keyword) if text]
        if len(set(texts)) > 1:
            self.unknown[keyword] = f"has {len(texts)} values instead of one"
            return None
        if not texts:
            return None
        found = decimal(texts[0])
        if found is None:
            self.unknown[keyword] = "is not a number (PS3.5 section 6.2)"
            return _leading_number(texts[0].replace(",", ".")) if lenient else None
        self.unknown.pop(keyword, None)
        return found

    def _number_texts(self, keyword: str) -> list[str]:
        """Texts of a number element, as stored if pydicom cannot convert it."""
        texts = self.texts(keyword)
        if self.unknown.get(keyword) != _DAMAGED:
            return texts
        raw = getattr(self.dataset.get_item(keyword), "value", b"")
        return [text.strip(_PADDING) for text in raw.decode("ascii", "replace").split("\\")] if raw else []


def _priority_term(keyword: str, text: str) -> str:
    if (term := _PRIORITY.get(keyword)) and (word := _LEADING_WORD.match(text)) and word[0] in (term, *_YES):
        return term
    return text


def _content(item: Dataset) -> list[str]:
    """Keywords of the elements that an item without a code has; values are not converted."""
    filled = [tag for tag in item.keys() if _is_filled(item.get_item(tag).value)]  # noqa: SIM118 (else it converts)
    return [
        name for name in (keyword_for_tag(tag) or "an unknown element" for tag in filled) if name not in _NO_CONTENT
    ]


def _is_filled(value: Any) -> bool:
    if isinstance(value, bytes):
        return bool(value.strip(_PADDING.encode()))
    return value is not None and (not hasattr(value, "__len__") or len(value) > 0)


def _leading_number(text: str) -> float | None:
    """The number that a text consists of or begins with; a percentage is divided by 100."""
    found, leading = decimal(text), _LEADING_NUMBER.match(text)
    if found is not None or leading is None:
        return found
    return float(leading[1]) / (100 if leading[2] else 1)

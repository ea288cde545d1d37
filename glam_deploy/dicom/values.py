"""Elements of a data set, read one by one: what cannot be understood is unknown and noted, and stops nothing here.

No value of an element that is unknown is kept or told: it could be a name.
"""

import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from glam_deploy.dicom.terms import DEFINED, MODIFIER_OF, VIEW_OF, Term
from glam_deploy.errors import DicomError

# pydicom converts elements when they are touched, and a damaged one may end in any of these
FOREIGN = (
    ValueError, TypeError, AttributeError, LookupError, ArithmeticError, NotImplementedError, RuntimeError, EOFError,
    OSError, MemoryError, AssertionError, struct.error, zlib.error, BytesLengthException,
    InvalidDicomError,
)  # fmt: skip

_KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (MemoryError, "there is not enough memory"),
    ((EOFError, struct.error, BytesLengthException), "a value is shorter than it should be"),
    (NotImplementedError, "it is of a kind that is not read"),
    (InvalidDicomError, "it is no DICOM file"),
    (OSError, "it cannot be read"),
    (zlib.error, "it cannot be inflated"),
)

NO_TERM = "holds a value that is not a defined term"
NO_CODE_STRING = "holds no DICOM code string (PS3.5 section 6.2), so no defined term"
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{0,16}")
_DAMAGED = "cannot be read"
_PADDING = " \0"
_DECIDING: Mapping[str, str] = {"BreastImplantPresent": "YES", "PartialView": "YES", "LossyImageCompression": "01"}
"""The term that counts where an element has it beside others, and that every word for yes stands for, whatever follows
that word ("YES BILATERAL"): what refuses an image must not pass by a remark behind it."""
_YES = frozenset({"YES", "Y", "TRUE", "T", "1", "JA", "OUI", "SI", "SIM"})
_LEADING_WORD = re.compile(r"[A-Z0-9]+")
_LEADING_NUMBER = re.compile(r"[Xx]?\s*(\d{1,3}(?:\.\d+)?)(?!-?[\d./])\s*(%?)")
"""Three digits at most and no part of a date: a message may quote the number, and none of an identifier."""
_CODES = ("CodeValue", "LongCodeValue", "URNCodeValue")
_NO_CONTENT = frozenset({"CodingSchemeDesignator", "CodingSchemeVersion", "ViewModifierCodeSequence"})
"""What an item may hold beside its code, and says nothing of the code: a scheme names a dictionary and no word in it
(PS3.3 table 8.8-1), so an item with a scheme alone is as empty as one without anything."""


@contextmanager
def foreign_errors(trouble: str) -> Iterator[None]:
    """Turn what pydicom or a decoder raises into DicomError.

    `trouble`: what is wrong, and behind a colon what to do. The kind of the original stands between, in words.
    """
    try:
        yield
    except FOREIGN as error:
        # not chained: pydicom quotes the bytes it stumbled on, any element's, and a logged traceback would show them
        what, colon, remedy = trouble.partition(": ")
        raise DicomError(f"{what} ({_kind_of(error)}){colon}{remedy}") from None


def _kind_of(error: BaseException) -> str:
    return next((words for kinds, words in _KINDS if isinstance(error, kinds)), "a value is none that belongs there")


class Elements:
    """Reads elements of one data set; `unknown` says of each keyword that could not be understood why."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.unknown: dict[str, str] = {}

    def values(self, keyword: str, dataset: Dataset | None = None) -> list[Any]:
        """All values of an element; none where it is absent, empty or damaged."""
        try:
            value = (self.dataset if dataset is None else dataset).get(keyword)
        except FOREIGN:
            self.unknown[keyword] = _DAMAGED
            return []
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        if value is None or value == "":
            return []
        return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]

    def texts(self, keyword: str, dataset: Dataset | None = None) -> list[str]:
        """All values as texts without padding, also that which senders add in excess."""
        values = self.values(keyword, dataset)
        # an element of another VR than its own comes as one text
        split = str(values[0]).split("\\") if len(values) == 1 else values
        return [str(value).strip(_PADDING) for value in split]

    def terms(self, keyword: str) -> list[str]:
        """All values of a code string, in capitals; none of them where one is not a defined term of that element."""
        found = [_deciding(keyword, text.upper()) for text in self.texts(keyword)]
        if any(text not in ("", *DEFINED[keyword]) for text in found):
            strange = not all(_CODE_STRING.fullmatch(text) for text in found)
            self.unknown[keyword] = NO_CODE_STRING if strange else NO_TERM
            return [_DECIDING[keyword]] if _DECIDING.get(keyword) in found else []
        return found

    def term(self, keyword: str) -> str:
        """The one value of a code string; "" where it is absent or unknown."""
        found = set(self.terms(keyword)) - {""}
        if _DECIDING.get(keyword) in found:
            return _DECIDING[keyword]
        if len(found) > 1:
            self.unknown[keyword] = f"has {len(found)} values instead of one"
            return ""
        return "".join(found)

    def orientation(self) -> tuple[str, ...]:
        """The two terms of PatientOrientation; none where it is absent or unknown, or one of the two is."""
        found = self.terms("PatientOrientation")
        if len(found) == 2 and all(found):
            return tuple(found)
        if any(found):
            self.unknown["PatientOrientation"] = "is not two values, of the rows and of the columns (PS3.3 C.7.6.1.1.1)"
        return ()

    def integer(self, keyword: str, *, required: bool = False) -> int | None:
        """Raises DicomError where a `required` one is there and is no integer."""
        found = self._number(keyword)
        if found is not None and not found.is_integer():
            self.unknown[keyword] = "is no integer"
        if required and keyword in self.unknown:
            raise DicomError(
                f"{keyword} {self.unknown[keyword]}, expected one integer: export the object again from its archive"
            )
        return None if found is None or keyword in self.unknown else int(found)

    def decimal(self, keyword: str) -> float | None:
        """One written with a decimal comma or a unit ("1,8", "1.8x", "180%") is unknown by the standard, and taken as
        it was meant all the same: where such an element refuses an image, no slip of the pen may let it pass.
        """
        return self._number(keyword, lenient=True)

    def spacing(self, keyword: str) -> tuple[float, ...] | None:
        """Two lengths above 0, or None."""
        values = [_to_number(text) for text in self.texts(keyword)]
        good = tuple(value for value in values if value is not None and value > 0)
        if values and (len(values) != 2 or len(good) != 2):
            self.unknown[keyword] = "is not two numbers above 0 (PS3.5 section 6.2)"
        return None if keyword in self.unknown or not values else good

    def uid(self, keyword: str) -> str:
        """The text of a UID, valid or not, without padding; "" where it is absent."""
        return "\\".join(self.texts(keyword))

    def views(self) -> tuple[Term, ...]:
        """The known terms of ViewCodeSequence, each once."""
        return tuple(dict.fromkeys(term for term in self._coded("ViewCodeSequence", VIEW_OF, 4014) if term))

    def modifiers(self) -> tuple[Term | None, ...]:
        """The terms of ViewModifierCodeSequence, None for each that is unknown."""
        # the standard nests modifiers in the view's item (PS3.3 C.8.11.7); some senders also put them beside it
        holders = (*self._items("ViewCodeSequence"), self.dataset)
        return tuple(
            term for holder in holders for term in self._coded("ViewModifierCodeSequence", MODIFIER_OF, 4015, holder)
        )

    def _coded(
        self, keyword: str, known: Mapping[tuple[str, str], Term], cid: int, holder: Dataset | None = None
    ) -> Iterator[Term | None]:
        """The terms of each item that is not empty, None where it has none of the context group `cid` (PS3.16)."""
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
        found = _to_number(texts[0])
        if found is None:
            self.unknown[keyword] = "is no number (PS3.5 section 6.2)"
            return _meant(texts[0].replace(",", ".")) if lenient else None
        self.unknown.pop(keyword, None)
        return found

    def _number_texts(self, keyword: str) -> list[str]:
        """As stored where pydicom cannot convert it."""
        texts = self.texts(keyword)
        if self.unknown.get(keyword) != _DAMAGED:
            return texts
        raw = getattr(self.dataset.get_item(keyword), "value", b"")
        return [text.strip(_PADDING) for text in raw.decode("ascii", "replace").split("\\")] if raw else []


def _deciding(keyword: str, text: str) -> str:
    if (term := _DECIDING.get(keyword)) and (word := _LEADING_WORD.match(text)) and word[0] in (term, *_YES):
        return term
    return text


def _content(item: Dataset) -> list[str]:
    """Keywords of what an item without a code holds; values are not converted."""
    filled = [tag for tag in item.keys() if _is_filled(item.get_item(tag).value)]  # noqa: SIM118 (else it converts)
    return [
        word for word in (keyword_for_tag(tag) or "an unknown element" for tag in filled) if word not in _NO_CONTENT
    ]


def _is_filled(value: Any) -> bool:
    if isinstance(value, bytes):
        return bool(value.strip(_PADDING.encode()))
    return value is not None and (not hasattr(value, "__len__") or len(value) > 0)


def _meant(text: str) -> float | None:
    """The number that a text is, or begins with."""
    found, leading = _to_number(text), _LEADING_NUMBER.match(text)
    if found is not None or leading is None:
        return found
    return float(leading[1]) / (100 if leading[2] else 1)


def _to_number(text: str) -> float | None:
    """A finite number; None for anything else."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) and "_" not in text else None

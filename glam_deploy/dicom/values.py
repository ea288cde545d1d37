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

NO_TERM = "holds a value that is not a defined term"
NO_CODE_STRING = "holds no DICOM code string (PS3.5 section 6.2), so no defined term"
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{0,16}")
_DAMAGED = "cannot be read"
_PADDING = " \0"
_DECIDING: Mapping[str, str] = {"BreastImplantPresent": "YES", "PartialView": "YES", "LossyImageCompression": "01"}
"""The term that counts where an element has it beside others."""


@contextmanager
def foreign_errors(trouble: str) -> Iterator[None]:
    """Turn what pydicom or a decoder raises into DicomError(`trouble`), which names only the class of the original."""
    try:
        yield
    except FOREIGN as error:
        # not chained: pydicom quotes the bytes it stumbled on, any element's, and a logged traceback would show them
        raise DicomError(f"{trouble} ({type(error).__name__})") from None


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
        found = [text.upper() for text in self.texts(keyword)]
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
        """One written with a decimal comma is unknown by the standard, and taken as it was meant all the same: where
        such an element refuses an image, no slip of the pen may let it pass.
        """
        return self._number(keyword, comma=True)

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
        """The term of each item that has a code, None for one outside the context group `cid` (PS3.16)."""
        for item in self._items(keyword, holder):
            code = tuple("\\".join(self.texts(part, item)) for part in ("CodingSchemeDesignator", "CodeValue"))
            if code[1] and code not in known:
                self.unknown[keyword] = f"holds a code outside CID {cid} (SCT, SRT, SNM3)"
            if code[1]:
                yield known.get((code[0], code[1]))

    def _items(self, keyword: str, holder: Dataset | None = None) -> list[Dataset]:
        values = self.values(keyword, holder)
        if any(not isinstance(value, Dataset) for value in values):
            self.unknown[keyword] = _DAMAGED
            return []
        return values

    def _number(self, keyword: str, *, comma: bool = False) -> float | None:
        texts = [text for text in self._number_texts(keyword) if text]
        if len(set(texts)) > 1:
            self.unknown[keyword] = f"has {len(texts)} values instead of one"
            return None
        if not texts:
            return None
        found = _to_number(texts[0])
        if found is None:
            self.unknown[keyword] = "is no number (PS3.5 section 6.2)"
            return _to_number(texts[0].replace(",", ".")) if comma else None
        self.unknown.pop(keyword, None)
        return found

    def _number_texts(self, keyword: str) -> list[str]:
        """As stored where pydicom cannot convert it."""
        texts = self.texts(keyword)
        if self.unknown.get(keyword) != _DAMAGED:
            return texts
        raw = getattr(self.dataset.get_item(keyword), "value", b"")
        return [text.strip(_PADDING) for text in raw.decode("ascii", "replace").split("\\")] if raw else []


def _to_number(text: str) -> float | None:
    """A finite number; None for anything else."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) and "_" not in text else None

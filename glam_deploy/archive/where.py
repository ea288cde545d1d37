"""Conditions on the header of a DICOM file: `Manufacturer=HOLOGIC*`, `StudyDate>=2020`, `Rows<4000`."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TypeVar

from glam_deploy.decimals import decimal
from glam_deploy.errors import DicomError, UsageError
from glam_deploy.input_files import resembles_dicom
from glam_deploy.installation import refusal
from glam_deploy.signatures import HEAD

T = TypeVar("T", str, float)

_CONDITION = re.compile(r"\s*([A-Za-z][A-Za-z0-9]*)\s*(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_NUMBERS = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_TIMES: Mapping[str, str] = MappingProxyType({"DA": "-.", "TM": ":", "DT": "-:T "})
"""VR of a date or time -> separators that may be written in a condition, as in ISO 8601."""
_YEARS: Mapping[str, float] = MappingProxyType({"Y": 1, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25})
"""Unit of an age string (VR AS, PS3.5 table 6.2-1) -> years."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A comparison of the values of one attribute with one value."""

    keyword: str
    vr: str
    operator: str
    """One of =, !=, <, <=, >, >=."""
    value: str
    """"" with = holds for an attribute without value, with != for one with a value."""

    def holds(self, values: Sequence[str]) -> bool:
        """Whether one of `values` fulfils the comparison; for != none of them may be equal."""
        if not self.value:
            return bool(values) == (self.operator == "!=")
        if self.operator == "!=":
            return not any(self._compare(text, "=") for text in values)
        return any(self._compare(text, self.operator) for text in values)

    def _compare(self, text: str, operator: str) -> bool:
        if self.vr in _TIMES:
            # a shorter value means all that begin with it: 2020 is each day of that year; "~" is after all digits
            found = _digits(text, self.vr)
            return _ordered(found, operator, self.value, self.value + "~")
        if self.vr in _NUMBERS or self.vr == "AS":
            number, wanted = _number(text, self.vr), _number(self.value, self.vr)
            return number is not None and wanted is not None and _ordered(number, operator, wanted, wanted)
        return fnmatchcase(text.lower(), self.value.lower())


@dataclass(frozen=True, kw_only=True)
class Where:
    """Conditions that all must hold; none: every file matches. `str` gives them in one form."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " and ".join(sorted(f"{one.keyword}{one.operator}{one.value}" for one in self.conditions))

    def matches(self, data: bytes) -> bool:
        """Whether a file fulfils all conditions; only its header is read, in bounded time and memory.

        A file that is not DICOM has no header and fulfils none. A DICOM file whose header cannot be read counts as
        matching, so that its damage is reported when it is read. Raises BackendUnavailable without pydicom.
        """
        if not self.conditions:
            return True
        if not resembles_dicom(data[:HEAD]):
            return False
        from glam_deploy.dicom.attributes import values_of

        try:
            values = values_of(data, [condition.keyword for condition in self.conditions])
        except DicomError:
            return True
        return all(condition.holds(values[condition.keyword]) for condition in self.conditions)


def parse_where(texts: Sequence[str]) -> Where:
    """The conditions in `texts`, each `KEYWORD OPERATOR VALUE`.

    Texts are compared without case, and with = and != as patterns of `*`, `?` and `[...]`; numbers, ages in years,
    dates and times by their order. Raises UsageError for an unknown keyword or operator or a value that does not fit,
    BackendUnavailable without pydicom.
    """
    return Where(conditions=tuple(_condition(text) for text in texts))


def _condition(text: str) -> Condition:
    try:
        from glam_deploy.dicom.attributes import vr_of
    except ModuleNotFoundError as error:
        if (absence := refusal(error, user="--where")) is None:
            raise
        raise absence from error
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text!r} is no condition, expected KEYWORD, one of = != < <= > >=, and a value: Manufacturer=HOLOGIC*"
        )
    keyword, operator, value = found[1], found[2], found[3].strip()
    vr = vr_of(keyword)
    return Condition(keyword=keyword, vr=vr, operator=operator, value=_checked(keyword, vr, operator, value))


def _checked(keyword: str, vr: str, operator: str, value: str) -> str:
    """The value as it is compared. Raises UsageError if it does not fit to the VR or the operator."""
    is_ordered = operator not in ("=", "!=")
    if not value and is_ordered:
        raise UsageError(f"{keyword}{operator} has no value, expected one")
    if value and vr in _TIMES:
        if not re.fullmatch(r"\d+(\.\d+)?", digits := _digits(value, vr)):
            raise UsageError(f"{keyword} is a date or time, but the value is {value!r}: write 2020-01-31 or 13:45")
        return digits
    if value and (vr in _NUMBERS or vr == "AS") and _number(value, vr) is None:
        expected = "an age such as 40 (years) or 018M" if vr == "AS" else "a number"
        raise UsageError(f"{keyword} is compared with {value!r}, expected {expected}")
    if is_ordered and vr not in (*_TIMES, *_NUMBERS, "AS"):
        raise UsageError(f"{keyword} is a text, which has no order: use = or !=, with * and ? for any characters")
    return value


def _digits(text: str, vr: str) -> str:
    """A date or time without separators; a date with time also without the offset of its time zone."""
    if vr == "DT":
        text = re.sub(r"(?<=\d{10})[+-]\d{4}\Z", "", text)
    return text.translate({ord(sign): None for sign in _TIMES[vr]})


def _number(text: str, vr: str) -> float | None:
    factor = 1.0
    if vr == "AS" and text[-1:] in _YEARS:
        text, factor = text[:-1], _YEARS[text[-1]]
    number = decimal(text)
    return None if number is None else number * factor


def _ordered(found: T, operator: str, low: T, high: T) -> bool:
    """Whether a value compares with the range from `low` to `high` as the operator says."""
    tests: Mapping[str, Callable[[], bool]] = {
        "=": lambda: low <= found <= high,
        "<": lambda: found < low,
        "<=": lambda: found <= high,
        ">": lambda: found > high,
        ">=": lambda: found >= low,
    }
    return tests[operator]()

"""What a person wants fetched: days, or a list of studies."""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import chain

from glam_deploy.dicom.uids import is_uid
from glam_deploy.errors import UsageError

STUDY_COLUMNS = ("studyinstanceuid", "studyuid", "study")
ACCESSION_COLUMNS = ("accessionnumber", "accession")
"""Names of the columns of a list, without regard to case, spaces, hyphens and underscores; the first one counts."""
_ACCESSION = re.compile(r"[^*?\\\x00-\x1f]{1,16}\Z")
"""An accession number (VR SH, PS3.5 section 6.2) without wildcards, which would select other studies."""
_NO_ACCESSION = "an accession number of up to 16 characters, without *, ?, \\ and control characters"
_AS_TEXT = re.compile(r'="(.*)"\Z', re.DOTALL)
"""A formula by which programs protect a text from a spreadsheet, as in ="00012346"."""
_CHANGED_NUMBER = re.compile(r"-?\d([.,]\d+)?E[+-]\d+\Z", re.ASCII | re.IGNORECASE)
"""How a spreadsheet exports a long number whose column is not text, as in 1,2346E+11: digits are lost."""
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?\s*\Z', re.IGNORECASE)
"""A first line that tells Excel the separator."""
MOST_DAYS = 36_600
MOST_ROWS = 1_000_000
"""Largest number of studies in one list."""
MOST_BYTES = 64 << 20
"""Largest list in bytes."""


@dataclass(kw_only=True)
class Selection:
    """Studies to fetch, in the order of the list."""

    studies: list[str] = field(default_factory=list)
    """Study Instance UIDs."""
    accessions: list[str] = field(default_factory=list)


def days(first: date, last: date) -> list[str]:
    """The days from `first` to `last`, both included, as YYYYMMDD. Raises UsageError if there are none, or too many."""
    count = (last - first).days + 1
    if count < 1:
        raise UsageError(f"the last day, {last}, is before the first, {first}: exchange --from and --to")
    if count > MOST_DAYS:
        raise UsageError(f"{first} to {last} are {count} days, expected up to {MOST_DAYS}: correct --from and --to")
    return [f"{first + timedelta(n):%Y%m%d}" for n in range(count)]


def read_list(lines: Iterable[str]) -> Selection:
    """The studies of a CSV list with a header line, separated by comma, semicolon or tab.

    `lines`: as of a file that was opened with newline="", so that a cell may hold line ends. The first line may be
    Excel's `sep=;`. A row with a Study Instance UID is found by it, another one by its accession number; empty rows are
    left out. Raises UsageError that names the line, also for more than `MOST_ROWS` studies.
    """
    rows = _rows(lines)
    _, header = next(rows, (0, []))
    names = [re.sub(r"[\s_-]", "", name).lower() for name in header]
    study, accession = _column(names, STUDY_COLUMNS), _column(names, ACCESSION_COLUMNS)
    if study is None and accession is None:
        raise UsageError(
            "the list has no column StudyInstanceUID or AccessionNumber: name one of them so in the first line"
        )
    found = Selection()
    for number, cells in rows:
        if uid := _cell(cells, study):
            found.studies.append(_checked(uid, is_uid(uid), number, "a Study Instance UID (PS3.5 section 9.1)"))
        elif value := _cell(cells, accession):
            found.accessions.append(_checked(value, _ACCESSION.match(value) is not None, number, _NO_ACCESSION))
        if len(found.studies) + len(found.accessions) > MOST_ROWS:
            raise UsageError(f"the list has more than {MOST_ROWS} studies: split it. Nothing was added")
    return found


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells, without empty rows."""
    iterator = iter(lines)
    first, skipped = next(iterator, ""), 0
    if declared := _SEPARATOR_LINE.match(first):
        separator, first, skipped = declared[1], next(iterator, ""), 1
    else:
        separator = next((mark for mark in ("\t", ";") if mark in first), ",")
    reader = csv.reader(chain([first], iterator), delimiter=separator)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num + skipped, cells
    except csv.Error as error:
        raise UsageError(
            f"line {reader.line_num + skipped} of the list is not CSV ({error}): export the list again"
        ) from None


def _column(names: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _cell(cells: list[str], column: int | None) -> str:
    text = cells[column].strip() if column is not None and column < len(cells) else ""
    formula = _AS_TEXT.match(text)
    return formula[1].strip() if formula else text


def _checked(value: str, is_valid: bool, number: int, expected: str) -> str:
    if _CHANGED_NUMBER.match(value):
        raise UsageError(
            f"line {number} of the list has a number as a spreadsheet shortens it, as in 1.2346E+11: give the column "
            "the format Text before its values are entered, and export the list again. Nothing was added"
        )
    if not is_valid:  # the value may be a name in the wrong column, which must not reach a log
        raise UsageError(f"line {number} of the list has no valid value: expected {expected}. Nothing was added")
    return value

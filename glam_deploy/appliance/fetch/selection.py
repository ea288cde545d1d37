"""What a person wants fetched: days, or a list of studies."""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

from glam_deploy.dicom.uids import is_uid
from glam_deploy.errors import UsageError

STUDY_COLUMNS = ("studyinstanceuid", "studyuid", "study")
ACCESSION_COLUMNS = ("accessionnumber", "accession")
"""Names of the columns of a list, without regard to case, spaces, hyphens and underscores; the first one counts."""
_ACCESSION = re.compile(r"[^*?\\\x00-\x1f]{1,16}\Z")
"""An accession number (VR SH, PS3.5 section 6.2) without wildcards, which would select other studies."""
MOST_DAYS = 36_600


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

    A row with a Study Instance UID is found by it, another one by its accession number; empty rows are left out. Raises
    UsageError that names the line.
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
            found.studies.append(_checked(uid, is_uid(uid), number, "Study Instance UID (PS3.5 section 9.1)"))
        elif value := _cell(cells, accession):
            valid = _ACCESSION.match(value) is not None
            found.accessions.append(_checked(value, valid, number, "accession number of up to 16 characters"))
    return found


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells, without empty rows."""
    iterator = iter(lines)
    first = next(iterator, "")
    separator = next((mark for mark in ("\t", ";") if mark in first), ",")
    reader = csv.reader((line for part in ([first], iterator) for line in part), delimiter=separator)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise UsageError(f"line {reader.line_num} of the list is not CSV ({error}): export the list again") from None


def _column(names: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _cell(cells: list[str], column: int | None) -> str:
    return cells[column].strip() if column is not None and column < len(cells) else ""


def _checked(value: str, is_valid: bool, number: int, expected: str) -> str:
    if not is_valid:  # the value may be a name in the wrong column, which must not reach a log
        raise UsageError(f"line {number} of the list has no valid value: expected a {expected}. Nothing was added")
    return value

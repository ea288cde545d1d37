"""CSV tables of an evaluation: reading with line numbers for messages, writing with harmless cells."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.errors import UsageError
from glam_deploy.outputs.table import csv_line
from glam_deploy.regular import read_regular

MAX_BYTES = 64 << 20
"""Largest size of a table."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record of a table."""

    path: Path
    line: int
    cells: Mapping[str, str]
    """Heading -> cell, without surrounding white space."""

    def wrong(self, column: str, expected: str) -> UsageError:
        """The error that a cell has a wrong value."""
        return UsageError(
            f"{self.path}, line {self.line}: {column} is {self.cells[column]!r}, expected {expected}: correct it"
        )


def read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
    """The records of a CSV file: UTF-8, separated by comma, semicolon or tab, with the headings `columns`.

    `optional`: headings that may be missing; their cells are then "". Other columns are ignored. Raises UsageError for
    a file that is no such table, and for one without records.
    """
    text = _text(path)
    heading = text.partition("\n")[0]
    separator = max(",;\t", key=heading.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = [cell.strip().lower() for cell in next(reader, [])]
        if missing := [column for column in columns if column not in names]:
            raise UsageError(
                f"{path}, line 1: the columns are {', '.join(names) or 'nothing'}, without "
                f"{', '.join(missing)}; expected {', '.join(columns)}. Add the heading"
            )
        rows = list(_rows(path, reader, names, [*columns, *optional]))
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: no row of a CSV file ({error}): correct it") from error
    if not rows:
        raise UsageError(f"{path} has no row below its heading, expected one for each image")
    return rows


def _rows(path: Path, reader: Iterable[list[str]], names: list[str], columns: list[str]) -> Iterator[Row]:
    for cells in reader:
        if any(cell.strip() for cell in cells):
            found = {name: cell.strip() for name, cell in zip(names, cells, strict=False)}
            line: int = reader.line_num  # type: ignore[attr-defined]  # of csv.reader
            yield Row(path=path, line=line, cells={column: found.get(column, "") for column in columns})


def _text(path: Path) -> str:
    try:
        return read_regular(path, MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}): save it as CSV UTF-8") from error


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table. Text is quoted and never a formula of a spreadsheet; None is an empty cell."""
    lines = (csv_line("" if cell is None else cell for cell in row) for row in (columns, *rows))
    path.write_text("".join(lines), "utf-8", newline="")

"""CSV tables of an evaluation: reading with line numbers for messages, writing with harmless cells."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.durable import write_whole
from glam_deploy.errors import UsageError
from glam_deploy.outputs.table import csv_line
from glam_deploy.regular import open_regular

_SEPARATOR = re.compile(r'"?sep=([,;\t])"?')
"""First line of a CSV file of Excel, which states the separator."""
MAX_BYTES = 64 << 20
"""Largest size of a table."""
MAX_ROWS = 250_000
"""Most records of a table, which take 0.4 GB; the largest set of docs/datasets.md has 20,000 images."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record of a table."""

    path: Path
    line: int
    """Line of the file on which the record begins, from 1."""
    cells: Mapping[str, str]
    """Heading -> cell, without surrounding white space."""

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def wrong(self, column: str, expected: str) -> UsageError:
        """The error that the cell of `column` has a wrong value."""
        return UsageError(
            f"{self.path}, line {self.line}: {column} is {self.cells[column]!r}, expected {expected}: correct it"
        )


def read_rows(
    path: Path,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    *,
    heading: Callable[[str], str] = str.lower,
    remedy: str = "add the heading",
    least: int = 1,
    whole: bool = True,
) -> list[Row]:
    """The records of a CSV file: UTF-8, separated by comma, semicolon or tab, with a heading.

    Excel's first line "sep=;" is understood. `whole`: whether every record must have all cells of the heading.

    `columns`: required headings, in the form that `heading` gives them. `optional`: headings that may be missing; their
    cells are then "". Cells in quotation marks may contain line ends. `remedy`: of a missing column. `least`: records
    that there must be, 0 or 1. Raises UsageError for a file that is no such table, lacks a column or a record, has more
    than MAX_ROWS records, or is ambiguous: a heading that is given twice, a cell without a heading.
    """
    text = _text(path)
    first = text.partition("\n")[0]
    stated = _SEPARATOR.fullmatch(first.strip())
    separator = stated[1] if stated else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        if stated:
            next(reader)
        names = [heading(cell.strip()) for cell in next(reader, [])]
        while names and not names[-1]:
            names.pop()
        if missing := [column for column in columns if column not in names]:
            raise UsageError(
                f"{path}, line 1: the columns are {', '.join(names) or 'nothing'}, without {', '.join(missing)}; "
                f"expected {', '.join(columns)}: {remedy}"
            )
        if twice := next((name for name in names if name and names.count(name) > 1), None):
            raise UsageError(f"{path}, line 1: the column {twice} is given twice, expected once: remove one of the two")
        rows = list(_records(path, names, optional, reader, whole=whole))
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: no row of a CSV file ({error}): correct it") from error
    if len(rows) < least:
        raise UsageError(f"{path} has no row below its heading, expected one for each image")
    return rows


def _records(
    path: Path, names: Sequence[str], optional: Sequence[str], reader: Iterator[list[str]], *, whole: bool
) -> Iterator[Row]:
    line = reader.line_num + 1  # type: ignore[attr-defined]  # of csv.reader
    count = 0
    for cells in reader:
        if any(cell.strip() for cell in cells):
            count += 1
            if count > MAX_ROWS:
                raise UsageError(f"{path} has more than {MAX_ROWS} rows: split it, or remove rows that are not needed")
            if surplus := next((cell for cell in cells[len(names) :] if cell.strip()), None):
                raise UsageError(
                    f"{path}, line {line}: there are {len(cells)} cells, the last ones such as {surplus!r}, expected "
                    f"{len(names)} as in the heading: write decimals with a point, and quote cells with a separator"
                )
            if whole and len(cells) < len(names):
                raise UsageError(
                    f"{path}, line {line}: there are {len(cells)} cells, expected {len(names)} as in the heading: "
                    f"complete the row (an empty cell needs its separator), or copy the file again"
                )
            padded = [*map(str.strip, cells), *[""] * (len(names) - len(cells))]
            found = dict.fromkeys(optional, "") | dict(zip(names, padded, strict=False))
            yield Row(path=path, line=line, cells=found)
        line = reader.line_num + 1  # type: ignore[attr-defined]


def _text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): check the path") from error
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES} bytes, expected a CSV table: check the path")
    if (zero := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, zero) + 1
        raise UsageError(f"{path}, line {line}: there is a NUL byte, expected UTF-8 text: save it as CSV UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}): save it as CSV UTF-8") from error


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table. Text is quoted and never a formula of a spreadsheet; None is an empty cell."""
    lines = (csv_line("" if cell is None else cell for cell in row) for row in (columns, *rows))
    write_whole(path, "".join(lines).encode())

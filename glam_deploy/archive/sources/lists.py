"""Lists of paths and URLs: CSV, Parquet and text files, read row by row."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from glam_deploy.archive.sources.locations import is_named_image, local_path, path_part, scheme_of
from glam_deploy.archive.sources.storage import is_file, is_url
from glam_deploy.errors import BackendUnavailable, UsageError
from glam_deploy.images import foreign
from glam_deploy.installation import lacks
from glam_deploy.signatures import HEAD, Kind, kind_of

PLACES = ("location", "url", "path", "file", "filename", "file_name")
"""Names of the column with the paths or URLs, in this order; a list of one column may have any name."""
SUFFIXES = (".csv", ".parquet", ".txt", ".lst")
_MAX_LINE = 1 << 16
_MAYBE_LISTS = (None, Kind.EMPTY, Kind.JSON, Kind.OTHER_PICTURE)
"""Formats by first bytes that a path may have too, such as [1].dcm."""
_PARQUET = (b"PAR1", b"PARE")
"""First bytes of a Parquet file, and of one with an encrypted footer."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a list."""

    place: str
    """Path or URL."""
    version: str = ""
    """Of the column `version` or `etag`."""
    size: int | None = None
    """Of the column `size`."""


def is_list(address: str) -> bool:
    """Whether the name is that of a list."""
    return path_part(address).lower().endswith(SUFFIXES)


def rows(file: BinaryIO, address: str) -> Iterator[Row]:
    """The rows of a list, without empty ones.

    Text: one path or URL a line, UTF-8; a line that begins with # is a comment. CSV: with a header line, unless the
    first line has no known name and begins with a URL or the path of an image, container or file. Raises UsageError for
    a list that cannot be read, BackendUnavailable for a Parquet list without pyarrow.
    """
    name = path_part(address).lower()
    if name.endswith(".parquet"):
        head = file.read(HEAD)
        if not head.startswith(_PARQUET):
            raise UsageError(f"the list is {_content(head)}, expected Parquet by its name: copy or write it again")
        file.seek(0)
        yield from _parquet(file)
        return
    reader: io.BufferedReader[Any] = io.BufferedReader(_Raw(file))
    _require_text(reader.peek(HEAD)[:HEAD])
    lines = _lines(reader)
    found = _csv(lines, address) if name.endswith(".csv") else (Row(place=line) for line in map(str.strip, lines))
    yield from (row for row in found if row.place and (name.endswith(".csv") or not row.place.startswith("#")))


def _require_text(head: bytes) -> None:
    """Raise UsageError if a list begins as a file of another format."""
    if head.startswith(_PARQUET) or kind_of(head) not in _MAYBE_LISTS:
        raise UsageError(
            f"the list is {_content(head)}, expected text with one path or URL a line: copy or write it again"
        )


def _content(head: bytes) -> str:
    """Description of a list that is of another format than its name says, to follow "the list is "."""
    if head.startswith(_PARQUET):
        return "a Parquet file, whose name must end with .parquet"
    kind = kind_of(head)
    known = foreign.KINDS.get(kind) if kind else None
    return known.name if known else f"of another format (it starts with {head[:4].hex()})"


def _lines(reader: "io.BufferedReader[Any]") -> Iterator[str]:
    number = 0
    while line := reader.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise UsageError(f"line {number} of the list has more than {_MAX_LINE} bytes, expected one path or URL")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"line {number} of the list is not UTF-8: save the list as UTF-8") from None


def _csv(lines: Iterator[str], address: str) -> Iterator[Row]:
    try:
        first = next((cells for cells in csv.reader(lines) if any(cells)), [])
        columns = [cell.strip().lower() for cell in first]
        if not {*PLACES, *_EXTRA} & {*columns} and first and _is_place(place := first[0].strip(), address):
            yield Row(place=place)
            columns = [PLACES[0], *(f"column {number}" for number in range(2, len(columns) + 1))]
        for cells in csv.DictReader(lines, columns):
            yield _row({column: str(cells.get(column) or "").strip() for column in columns}, columns)
    except csv.Error as error:
        raise UsageError(f"the list is not CSV ({error}): expected a header line and one path or URL a row") from None


def _is_place(text: str, address: str) -> bool:
    """Whether the first cell of a list is a path or URL and no name of a column."""
    if scheme_of(text) or is_named_image(text):
        return True
    return bool(text) and not is_url(address) and is_file(local_path(address).parent / text)


def _parquet(file: BinaryIO) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise BackendUnavailable(lacks("a Parquet list", ["pyarrow"], "ray")) from None
    try:
        table = parquet.ParquetFile(file)
        names = table.schema_arrow.names
        columns = [name.lower() for name in names]
        wanted = [names[columns.index(name)] for name in {_place(columns), *_EXTRA} if name in columns]
        for batch in table.iter_batches(batch_size=10_000, columns=wanted):
            for cells in batch.to_pylist():
                values = {name.lower(): "" if value is None else str(value) for name, value in cells.items()}
                if (row := _row(values, columns)).place:
                    yield row
    except (pyarrow.ArrowException, OSError) as error:  # pyarrow raises OSError for damaged pages
        raise UsageError(f"the list is no readable Parquet file ({type(error).__name__}): write it again") from None


_EXTRA = ("version", "etag", "size")


def _place(columns: list[str]) -> str:
    if found := next((name for name in PLACES if name in columns), ""):
        return found
    if len(columns) != 1 or any(separator in columns[0] for separator in ";\t"):
        raise UsageError(
            f"the list has no column {', '.join(PLACES[:-1])} or {PLACES[-1]}: name the column of paths or URLs so, "
            "and separate columns with commas"
        )
    return columns[0]


def _row(cells: dict[str, str], columns: list[str]) -> Row:
    size = cells.get("size", "")
    return Row(
        place=cells[_place(columns)],
        version=cells.get("version") or cells.get("etag") or "",
        size=int(size) if size.isascii() and size.isdigit() else None,
    )


class _Raw(io.RawIOBase):
    """The raw form of a file, for a buffered reader."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        found = self._file.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

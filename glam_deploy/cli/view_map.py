"""A table of views (`--views`): which view each file shows, for data sets that do not tell it in header or name."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.errors import UsageError
from glam_deploy.outputs.writer import stem_of
from glam_deploy.records import VIEW_NAMES, View
from glam_deploy.regular import open_regular

FILES = ("file", "filename", "file name", "path", "file path", "image file path", "image", "image id", "id", "name")
"""Headings of the column that names an image, in the order in which they count; "_" and case do not."""
SIDES = ("laterality", "image laterality", "left or right breast", "side", "breast")
PROJECTIONS = ("view position", "viewposition", "image view", "projection", "view")
VIEWS = ("view", "views")

_VIEW = re.compile(r"(L|R|LEFT|RIGHT)[-_ .]*(CC|MLO)")
MAX_BYTES = 64 << 20
"""Of a table that is read."""

_TOLD = 5
"""Most lines that a message names."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table."""

    line: int
    """In the file, from 1."""
    view: View


@dataclass(frozen=True, kw_only=True)
class ViewMap:
    """A table that was read."""

    path: Path
    rows: dict[str, Row]
    """Name of an image, as written, -> its row."""

    def assign(self, inputs: Sequence[Path]) -> tuple[dict[Path, View], list[int]]:
        """The view of each input that the table names, and the lines that name no input.

        A row names an input by its path, the end of its path, or its name, each with or without suffix; the longest
        counts. Raises UsageError where a row names several inputs.
        """
        views: dict[Path, View] = {}
        named: dict[str, Path] = {}
        for path in inputs:
            key = next((key for key in _keys(path) if key in self.rows), None)
            if key is None:
                continue
            if key in named:
                raise UsageError(
                    f"{self.path}, line {self.rows[key].line}: {key!r} names both {named[key]} and {path}. Write the "
                    "folders before the names, as far as they differ"
                )
            named[key] = path
            views[path] = self.rows[key].view
        return views, sorted(row.line for key, row in self.rows.items() if key not in named)


def read_views(path: Path) -> ViewMap:
    """The table in a CSV file: UTF-8, separated by comma, semicolon or tab, with a heading.

    A column names the images (`FILES`). The view stands in one column (`VIEWS`: L-CC, LCC, LEFT_CC), or in two:
    laterality (`SIDES`: L, R, left, right) and projection (`PROJECTIONS`: CC, MLO), as in VinDr-Mammo's
    breast-level_annotations.csv. Rows that repeat others are one. Raises UsageError, with line numbers, for a file that
    is no such table, a view that is none of the four, and rows that tell one image different views.
    """
    rows: dict[str, Row] = {}
    bad: list[str] = []
    for line, name, cells in _entries(path):
        view = _view(cells)
        if not name or view is None:
            told = " ".join(cells)
            bad.append(f"line {line}: {f'{name!r} is {told!r}' if name else 'no image is named'}")
        elif (earlier := rows.get(name)) and earlier.view != view:
            bad.append(f"line {line}: {name!r} is {view}, and {earlier.view} in line {earlier.line}")
        else:
            rows.setdefault(name, Row(line=line, view=view))
    if bad:
        raise UsageError(f"{path}: {'; '.join(_some(bad))}. Expected one of {VIEW_NAMES} for each image: correct these")
    if not rows:
        raise UsageError(f"{path} names no image: expected a row for each, below the heading")
    return ViewMap(path=path, rows=rows)


def told_lines(lines: Sequence[int]) -> str:
    """Line numbers for a message, the first few of them."""
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(_some([str(line) for line in lines]))}"


def _some(items: Sequence[str]) -> list[str]:
    more = [f"and {len(items) - _TOLD} more"] if len(items) > _TOLD else []
    return [*items[:_TOLD], *more]


def _entries(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, name of the image, and the one or two cells that tell its view."""
    text = _text(path)
    heading = text.partition("\n")[0]
    separator = max(",;\t", key=heading.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        columns = [" ".join(cell.replace("_", " ").lower().split()) for cell in next(reader, [])]
        file, view = _columns(path, columns)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            cells = [row[n].strip() if n < len(row) else "" for n in (file, *view)]
            yield reader.line_num, cells[0].replace("\\", "/").removeprefix("./"), cells[1:]
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: no row of a CSV file ({error}): correct it") from error


def _columns(path: Path, columns: Sequence[str]) -> tuple[int, tuple[int, ...]]:
    file, side = _column(columns, FILES), _column(columns, SIDES)
    view = _column(columns, VIEWS if side is None else PROJECTIONS)
    if file is None or view is None:
        found = ", ".join(columns) or "nothing"
        raise UsageError(
            f"{path}, line 1: the columns are {found}; expected file and view, or image_id, laterality and "
            "view_position. Add this heading"
        )
    return file, (view,) if side is None else (side, view)


def _column(columns: Sequence[str], names: Sequence[str]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


def _text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UsageError(f"the views {path} have more than {MAX_BYTES} bytes, expected a CSV file of views")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"the views {path} cannot be read ({error.strerror}): check --views") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the views {path} are no UTF-8 text (byte {error.start}): save them as CSV UTF-8") from error


def _view(cells: Sequence[str]) -> View | None:
    """The view in one cell, or in two: side and projection, of which the second may be the whole view again."""
    text = cells[-1].upper()
    if len(cells) == 2 and text in ("CC", "MLO"):
        text = f"{cells[0].upper()}-{text}"
    if not (told := _VIEW.fullmatch(text)):
        return None
    agree = len(cells) == 1 or cells[0].upper() in (told[1], told[1][0], {"L": "LEFT", "R": "RIGHT"}[told[1][0]])
    return View(f"{told[1][0]}-{told[2]}") if agree else None


def _keys(path: Path) -> Iterator[str]:
    """What a table may call a file, the longest first."""
    parts = path.absolute().parts
    for n in range(len(parts)):
        whole = "/".join(parts[n:]).replace("//", "/")
        yield whole
        yield whole.removesuffix(path.name) + stem_of(path)

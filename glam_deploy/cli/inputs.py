"""The inputs of `run`, the names of their results, and the view of each input by a table (`--views`)."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from glam_deploy.cli import console
from glam_deploy.errors import UsageError, counted
from glam_deploy.images import image_files
from glam_deploy.input_files import find_inputs
from glam_deploy.outputs.writer import is_result, names_in_the_way, require_free, stem_of, unique_stems
from glam_deploy.records import VIEW_NAMES, View
from glam_deploy.regular import open_regular
from glam_deploy.view_names import not_a_mammogram

FILES = ("file", "filename", "file name", "path", "file path", "image file path", "image", "image id", "id", "name")
"""Headings of the column that names an image, by priority; case and "_" are ignored."""
SIDES = ("laterality", "image laterality", "left or right breast", "side", "breast")
PROJECTIONS = ("view position", "viewposition", "image view", "projection", "view")
VIEWS = ("view", "views")
EXAMS = ("exam", "exam id", "study", "study id")

_VIEW = re.compile(r"(L|R|LEFT|RIGHT)[-_ .]*(CC|MLO)")
MAX_BYTES = 64 << 20
"""Largest size of a table."""

_LISTED = 5
"""Most lines that a message lists."""


def plan(inputs: Sequence[Path], out: Path) -> dict[Path, str]:
    """Input file -> stem of its results. Prints to standard error how many other files a searched folder has.

    Results, outlines and crops in a searched folder are not inputs. Raises UsageError as `find_inputs`, if there is no
    other file, and if a result would replace an input or a file that is not a result.
    """
    stems = unique_stems(_mammograms(inputs))
    in_the_way = names_in_the_way(out, stems.values())
    folders = cache(Path.resolve)
    originals = {_real(path, folders) for path in stems} if in_the_way else set()
    for path, stem in stems.items():
        for name in in_the_way.get(stem, ()):
            if _real(out / name, folders) in originals:
                raise UsageError(
                    f"{out / name} is an input, and a result of {path} would replace it. "
                    f"Name another folder with --out."
                )
        if stem in in_the_way:
            require_free(out, stem)
    return stems


def _real(path: Path, folders: Callable[[Path], Path]) -> Path:
    """As `Path.resolve`; `folders` is a cached `Path.resolve`, called once for each folder."""
    return path.resolve() if path.is_symlink() else folders(path.parent) / path.name


def assigned_rows(table: Path | None, inputs: Sequence[Path]) -> "Mapping[Path, Row]":
    """The row of each input that the table names; prints rows that name no input to standard error."""
    if table is None:
        return {}
    rows, unknown = read_views(table).assign_rows(inputs)
    if not rows:
        raise UsageError(f"{table}: no row names an input, such as {inputs[0]}: check the names in it")
    if unknown:
        console.err.print(
            f"rows of {table} that name no input: {len(unknown)} ({_line_numbers(unknown)})", soft_wrap=True
        )
    return rows


def _mammograms(inputs: Sequence[Path]) -> list[Path]:
    """The named files, and the found files that are not results and do not have the name of an outline."""
    named = set(inputs)
    found = find_inputs(inputs, on_passed_over=_print_passed_over)
    kept = [path for path in found if path in named or not is_result(path)]
    if not kept:
        raise UsageError("all images there are results of an earlier run: check the inputs")
    outlines = {path for path in kept if path not in named and _is_outline(path)}
    if outlines:
        files = f"{counted(len(outlines), 'file')} with the name of an outline or crop, such as {min(outlines)}"
        if len(outlines) == len(kept):
            raise UsageError(f"no mammogram found, only {files}. Give the whole mammograms or their folder")
        console.err.print(f"passed over: {files}", soft_wrap=True)
    return [path for path in kept if path not in outlines]


def _is_outline(path: Path) -> bool:
    """Whether the name is that of an outline or crop; DICOM objects are judged by their header instead."""
    return path.suffix.lower() in image_files.SUFFIXES and bool(not_a_mammogram(path))


def _print_passed_over(folder: Path, others: Sequence[Path]) -> None:
    print_passed_over(sum(not is_result(path) for path in others), f"in {folder}")


def print_passed_over(number: int, place: str) -> None:
    """Print how many files are no images, to standard error; nothing for 0. `place`: such as "in FOLDER"."""
    if number:
        verb = "was" if number == 1 else "were"
        console.err.print(f"{counted(number, 'other file')} {place} {verb} passed over", soft_wrap=True)


# tables of views


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table."""

    line: int
    """Line number in the file, from 1."""
    view: View
    exam: str = ""
    """Identifier of the exam; "" if the table has none."""


@dataclass(frozen=True, kw_only=True)
class ViewMap:
    """Content of a table."""

    path: Path
    rows: dict[str, Row]
    """Name of an image, as written, -> its row."""

    def assign(self, inputs: Sequence[Path]) -> tuple[dict[Path, View], list[int]]:
        """The view of each input that the table names, and the lines that name no input.

        A row names an input by its path, the end of its path, or its name, each with or without suffix; the longest
        counts. Raises UsageError where a row names several inputs.
        """
        rows, unknown = self.assign_rows(inputs)
        return {path: row.view for path, row in rows.items()}, unknown

    def assign_rows(self, inputs: Sequence[Path]) -> tuple[dict[Path, Row], list[int]]:
        """As `assign`, with the row of each input."""
        rows: dict[Path, Row] = {}
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
            rows[path] = self.rows[key]
        return rows, sorted(row.line for key, row in self.rows.items() if key not in named)


def read_views(path: Path) -> ViewMap:
    """The table in a CSV file: UTF-8, separated by comma, semicolon or tab, with a heading.

    A column names the images (`FILES`). The view stands in one column (`VIEWS`: L-CC, LCC, LEFT_CC), or in two:
    laterality (`SIDES`: L, R, left, right) and projection (`PROJECTIONS`: CC, MLO), as in VinDr-Mammo's
    breast-level_annotations.csv. Rows that repeat others are one. Raises UsageError, with line numbers, for a file that
    is no such table, a view that is none of the four, and rows that tell one image different views or exams. A column
    `EXAMS` may name the exam.
    """
    rows: dict[str, Row] = {}
    bad: list[str] = []
    for line, name, exam, cells in _entries(path):
        view = _view(cells)
        if not name or view is None:
            text = " ".join(cells)
            bad.append(f"line {line}: {f'{name!r} is {text!r}' if name else 'no image is named'}")
        elif (earlier := rows.get(name)) and earlier.view != view:
            bad.append(f"line {line}: {name!r} is {view}, and {earlier.view} in line {earlier.line}")
        elif earlier and earlier.exam != exam:
            bad.append(f"line {line}: {name!r} is of exam {exam!r}, and of {earlier.exam!r} in line {earlier.line}")
        else:
            rows.setdefault(name, Row(line=line, view=view, exam=exam))
    if bad:
        raise UsageError(f"{path}: {'; '.join(_some(bad))}. Expected one of {VIEW_NAMES} for each image: correct these")
    if not rows:
        raise UsageError(f"{path} names no image: expected a row for each, below the heading")
    return ViewMap(path=path, rows=rows)


def _line_numbers(lines: Sequence[int]) -> str:
    """Line numbers for a message; at most _LISTED are listed."""
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(_some([str(line) for line in lines]))}"


def _some(items: Sequence[str]) -> list[str]:
    more = [f"and {len(items) - _LISTED} more"] if len(items) > _LISTED else []
    return [*items[:_LISTED], *more]


def _entries(path: Path) -> Iterator[tuple[int, str, str, list[str]]]:
    """Line number, name of the image, its exam, and the one or two cells with its view."""
    text = _text(path)
    heading = text.partition("\n")[0]
    separator = max(",;\t", key=heading.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        columns = [" ".join(cell.replace("_", " ").lower().split()) for cell in next(reader, [])]
        file, view = _columns(path, columns)
        exam = _column(columns, EXAMS)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            cells = [row[n].strip() if n is not None and n < len(row) else "" for n in (file, exam, *view)]
            yield reader.line_num, cells[0].replace("\\", "/").removeprefix("./"), cells[1], cells[2:]
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
        raise UsageError(f"the views {path} are not UTF-8 text (byte {error.start}): save them as CSV UTF-8") from error


def _view(cells: Sequence[str]) -> View | None:
    """The view in one cell, or in two: side and projection, of which the second may be the whole view again."""
    text = cells[-1].upper()
    if len(cells) == 2 and text in ("CC", "MLO"):
        text = f"{cells[0].upper()}-{text}"
    if not (found := _VIEW.fullmatch(text)):
        return None
    agree = len(cells) == 1 or cells[0].upper() in (found[1], found[1][0], {"L": "LEFT", "R": "RIGHT"}[found[1][0]])
    return View(f"{found[1][0]}-{found[2]}") if agree else None


def _keys(path: Path) -> Iterator[str]:
    """The names of a file that a table may use, the longest first."""
    parts = path.absolute().parts
    for n in range(len(parts)):
        whole = "/".join(parts[n:]).replace("//", "/")
        yield whole
        yield whole.removesuffix(path.name) + stem_of(path)

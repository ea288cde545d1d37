"""results.csv: one line for each input of a run, appended when its report is written. See docs/outputs.md.

Every line is made from a report alone, so that a table which lost lines is completed from the reports.
"""

import csv
import io
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from glam_deploy.errors import UsageError
from glam_deploy.outputs.report import Report
from glam_deploy.regular import open_regular

TABLE = "results.csv"

_SCORES = ("y_global", "y_local", "y_fusion")
_CLASSES = ("benign", "malignant")
COLUMNS = (
    "file",
    "view",
    "status",
    *(f"{score}_{name}" for score in _SCORES for name in _CLASSES),
    "patches",
    "notices",
    "error",
    "reason",
    "time_ms",
    "engine",
    "bundle",
    "report",
)
"""Stable: a later release adds columns to the right only."""

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What spreadsheets take for the beginning of a formula, in both widths (OWASP, "CSV Injection")."""


class Table:
    """The table in a folder of results, open for one run. For one thread at a time."""

    def __init__(self, folder: Path, *, engine: str, bundle: str, again: Collection[str] | None = None) -> None:
        """Begin a table, or go on with the one that is there.

        `engine`, `bundle`: name and digest, for inputs without a result. `again`: names of the reports of this run,
        None to begin anew; lines of other reports stay, lines of these stay where their status is "done". A last line
        that was cut off by a kill goes. Raises UsageError where a file that is no such table is in the way.
        """
        self._path, self._engine, self._bundle = folder / TABLE, engine, bundle
        require_table(self._path)
        kept: dict[str, str] = {}
        if again is not None:
            mine = set(map(_harmless, again))
            for line in _lines(self._path):
                report, status = _cell(line, "report"), _cell(line, "status")
                if status == "done" or report not in mine:
                    kept[report] = line
        _replace(self._path, kept.values())
        # as they stand in the table
        self._reports, self._files = set(kept), {_cell(line, "file") for line in kept.values()}

    def __contains__(self, report: str) -> bool:
        return _harmless(report) in self._reports

    def add(self, file: Path, report_name: str, report: Report) -> None:
        """Append the line of an input, in the place of earlier ones of the same report or file. Raises OSError."""
        own = {"report": _harmless(report_name), "file": _harmless(str(file))}
        if own["report"] in self._reports or own["file"] in self._files:
            others = [line for line in _lines(self._path) if all(_cell(line, key) != cell for key, cell in own.items())]
            _replace(self._path, others)
        line = _line(self._row(file, report_name, report))
        # in one call, so that no line of another writer comes in between
        with self._path.open("ab", buffering=0) as file_:
            file_.write(line.encode())
        self._reports.add(own["report"])
        self._files.add(own["file"])

    def _row(self, file: Path, report_name: str, report: Report) -> dict[str, object]:
        made_by, error = report["provenance"], report["error"] or {}
        scores = report["predictions"] or {}
        return {
            "file": str(file),
            "view": report["input"]["view"] or "",
            "status": report["status"],
            **{f"{score}_{name}": scores.get(score, {}).get(name, "") for score in _SCORES for name in _CLASSES},
            "patches": _boxes(report) if scores else "",
            "notices": " ".join(warning["code"] for warning in report["warnings"]),
            "error": error.get("type", ""),
            "reason": error.get("message", ""),
            "time_ms": round(sum(report["timings_ms"].values()), 3) if scores else "",
            "engine": made_by.get("engine", {}).get("name", self._engine),
            "bundle": made_by.get("bundle", {}).get("id", self._bundle),
            "report": report_name,
        }


def is_table(path: Path) -> bool:
    """Whether glam-deploy wrote this file, in this release or another: it begins with the first columns."""
    if path.name != TABLE:
        return False
    try:
        with open_regular(path) as file:
            return file.read(512).startswith(_line(COLUMNS[:3]).rstrip("\n").encode())
    except OSError:
        return False


def require_table(path: Path) -> None:
    """UsageError where a file of the user's has the table's name."""
    if (path.exists() or path.is_symlink()) and not is_table(path):
        raise UsageError(
            f"{path} is in the way and was not written by glam-deploy; move it away, or choose another output folder"
        )


def _boxes(report: Report) -> str:
    """Places of the patches in the source image, in order of choice: [[top, left, bottom, right], null]."""
    boxes = ("null" if box is None else f"[{', '.join(map(str, box))}]" for box in _source_boxes(report))
    return f"[{', '.join(boxes)}]"


def _source_boxes(report: Report) -> list[Any]:
    return [patch["source_box"] for patch in report["patches"]]


def _line(row: dict[str, object] | Iterable[str]) -> str:
    cells = row.values() if isinstance(row, dict) else row
    stream = io.StringIO()
    # text in quotes: in a locale whose separator is another one, a cell stays a cell
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow([_harmless(cell) if isinstance(cell, str) else cell for cell in cells])
    return stream.getvalue()


def _harmless(text: str) -> str:
    """One line that no spreadsheet takes for a formula; what cannot be printed, and is no UTF-8, as escapes."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def _lines(path: Path) -> list[str]:
    """Whole lines of a table with today's columns, without its heading."""
    try:
        content = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    heading, *lines = content.split("\n")
    whole = lines[:-1]  # after the last line end stands nothing, or what was cut off
    if f"{heading}\n" != _line(COLUMNS):
        return []
    return [f"{line}\n" for line in whole if len(_cells(line)) == len(COLUMNS)]


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _cell(line: str, column: str) -> str:
    return _cells(line)[COLUMNS.index(column)]


def _replace(path: Path, lines: Iterable[str]) -> None:
    draft = path.with_name(f".{TABLE}.{os.getpid()}")
    try:
        draft.write_text("".join([_line(COLUMNS), *lines]), "utf-8", newline="")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)

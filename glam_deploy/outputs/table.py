"""The table results.csv: one line per input of a run, appended when its report is written. See docs/outputs.md.

Every line is made only from a report, so that missing lines can be restored from the reports.
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
"""Column names; they are stable, and later releases only append columns."""

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters that start a formula in spreadsheets, in normal and full width (OWASP, "CSV Injection")."""


class Table:
    """The table in a folder of results, for one run. Not thread-safe."""

    def __init__(self, folder: Path, *, engine: str, bundle: str, again: Collection[str] | None = None) -> None:
        """Create the table, or continue an existing one.

        `engine`, `bundle`: engine name and bundle id, for inputs without a result. `again`: names of the reports of
        this run, or None for a new table. Lines of other reports are kept; lines of these reports are kept if their
        status is "done". An incomplete last line of a killed process is removed. Raises UsageError if a file that is
        not such a table has its name.
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
        # escaped as in the table
        self._reports, self._files = set(kept), {_cell(line, "file") for line in kept.values()}

    def __contains__(self, report: str) -> bool:
        return _harmless(report) in self._reports

    def add(self, file: Path, report_name: str, report: Report) -> None:
        """Append the line of an input, and remove earlier lines of the same report or file. Raises OSError."""
        own = {"report": _harmless(report_name), "file": _harmless(str(file))}
        if own["report"] in self._reports or own["file"] in self._files:
            others = [line for line in _lines(self._path) if all(_cell(line, key) != cell for key, cell in own.items())]
            _replace(self._path, others)
        line = csv_line(self._row(file, report_name, report))
        # in one system call, so that lines of several writers are not mixed
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
    """Whether any release of glam-deploy wrote this file: it starts with the names of the first columns."""
    if path.name != TABLE:
        return False
    try:
        with open_regular(path) as file:
            return file.read(512).startswith(csv_line(COLUMNS[:3]).rstrip("\n").encode())
    except OSError:
        return False


def require_table(path: Path) -> None:
    """Raises UsageError if a file that glam-deploy did not write has the table's name."""
    if (path.exists() or path.is_symlink()) and not is_table(path):
        raise UsageError(
            f"{path} exists and was not written by glam-deploy: move it away, or choose another output folder"
        )


def _boxes(report: Report) -> str:
    """Boxes of the patches in the source image, in order of selection: [[top, left, bottom, right], null]."""
    boxes = ("null" if box is None else f"[{', '.join(map(str, box))}]" for box in _source_boxes(report))
    return f"[{', '.join(boxes)}]"


def _source_boxes(report: Report) -> list[Any]:
    return [patch["source_box"] for patch in report["patches"]]


def csv_line(row: dict[str, object] | Iterable[object]) -> str:
    """One line of a table: text is quoted and harmless (`_harmless`), so that it is one cell in every locale."""
    cells = row.values() if isinstance(row, dict) else row
    stream = io.StringIO()
    # all text is quoted, so that cells stay intact in locales with another separator
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow([_harmless(cell) if isinstance(cell, str) else cell for cell in cells])
    return stream.getvalue()


def _harmless(text: str) -> str:
    """Escape text: the result is one line and not a spreadsheet formula; unprintable characters become escapes."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def _lines(path: Path) -> list[str]:
    """Complete lines of a table with the current columns, without the heading; empty for any other file."""
    try:
        content = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    heading, *lines = content.split("\n")
    whole = lines[:-1]  # the last item is empty or an incomplete line
    if f"{heading}\n" != csv_line(COLUMNS):
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
        draft.write_text("".join([csv_line(COLUMNS), *lines]), "utf-8", newline="")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)

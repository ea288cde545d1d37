"""The tables results.csv, one line per input of a run, and exams.csv, one per exam. See docs/outputs.md.

Lines of results.csv are appended when reports are written, and are made only from a report and the exam of its input,
so that missing lines can be restored. exams.csv is made from the lines of results.csv.
"""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Sequence
from math import nan
from pathlib import Path
from typing import Any

from glam_deploy.durable import write_whole
from glam_deploy.errors import UsageError
from glam_deploy.exams import WRONG, ExamScores, ViewScores, any_group, made_by, score_exams
from glam_deploy.outputs.report import Report, shortest
from glam_deploy.records import View
from glam_deploy.regular import open_regular

TABLE = "results.csv"
EXAMS = "exams.csv"

_SCORES = ("y_global", "y_local", "y_fusion")
_CLASSES = ("benign", "malignant")
_STATUSES = ("done", "skipped", "failed")
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
    "exam",
    "made_by",
    "headers",
)
"""Column names; they are stable, and later releases only append columns."""

_LEVELS = ("exam", "left", "right")
EXAM_COLUMNS = (
    "exam",
    "complete",
    "remarks",
    "images",
    "views",
    "score",
    "calibrated",
    *(f"{level}_{name}_{rule}" for level in _LEVELS for name in _CLASSES for rule in ("mean", "maximum")),
)
"""Column names of exams.csv, as stable."""

_NOT_COMPARED = "not compared"
"""Cell "headers" of an image that could not be compared with one of its exam from another run."""

Patient = tuple[tuple[str, str], ...]
"""As `Source.patient`."""

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters that start a formula in spreadsheets, in normal and full width (OWASP, "CSV Injection")."""


class Table:
    """The table in a folder of results, for one run. Not thread-safe."""

    def __init__(
        self,
        folder: Path,
        *,
        engine: str,
        bundle: str,
        again: Collection[str] | None = None,
        read_patient: Callable[[Path], Patient | None] = lambda path: None,
    ) -> None:
        """Create the table, or continue an existing one.

        `engine`, `bundle`: engine name and bundle id, for inputs without a result. `again`: names of the reports of
        this run, or None for a new table. Lines of other reports are kept; lines of these reports are kept if their
        status is "done". An incomplete last line of a killed process is removed. `read_patient`: as
        `reading.read_patient`, for images of other runs. Raises UsageError if a file that is not such a table has its
        name.
        """
        self._path, self._engine, self._bundle = folder / TABLE, engine, bundle
        self._read_patient, self._patients = read_patient, dict[str, Patient]()
        for name in (TABLE, EXAMS):
            require_table(folder / name)
        (folder / EXAMS).unlink(missing_ok=True)
        kept: dict[str, str] = {}
        mine = set(map(harmless, again or ()))
        if again is not None:
            for line in _lines(self._path):
                report, status = _cell(line, "report"), _cell(line, "status")
                if status == "done" or report not in mine:
                    kept[report] = line
        _replace(self._path, kept.values())
        # escaped as in the table
        self._reports = {report: _content(line) for report, line in kept.items()}
        # one of each exam is sufficient, because every line says how it differs from those before it
        self._others = {
            _cell(line, "exam"): _cell(line, "file")
            for report, line in kept.items()
            if report not in mine and _cell(line, "status") == "done"
        }
        self._files = {_cell(line, "file") for line in kept.values()}

    def __contains__(self, report: str) -> bool:
        return harmless(report) in self._reports

    def keep(self, file: Path, report_name: str, report: Report, exam: str = "", patient: Patient = ()) -> None:
        """As `add`, but does nothing if the table has this line, whatever the path of the input in it."""
        line = self._line(file, report_name, report, exam, patient)
        if self._reports.get(harmless(report_name)) != _content(line):
            self._append(file, report_name, line)

    def add(self, file: Path, report_name: str, report: Report, exam: str = "", patient: Patient = ()) -> None:
        """Append the line of an input, and remove earlier lines of the same report or file. Raises OSError.

        `exam`: identifier of its exam; "" if it is unknown. `patient`: as `Source.patient`, compared with that of the
        other images of the exam, and not written.
        """
        self._append(file, report_name, self._line(file, report_name, report, exam, patient))

    def _line(self, file: Path, report_name: str, report: Report, exam: str, patient: Patient) -> str:
        headers = self._headers(exam, patient) if exam and patient else ""
        return csv_line(self._row(file, report_name, report) | {"exam": exam, **_maker(report), "headers": headers})

    def _headers(self, exam: str, patient: Patient) -> str:
        """The keywords in which the header differs from that of an earlier image of the exam, or _NOT_COMPARED."""
        found = ""
        if exam not in self._patients:
            other = self._others.get(harmless(exam))
            earlier = self._read_patient(Path(other)) if other is not None else ()
            found = _NOT_COMPARED if earlier is None else ""
            self._patients[exam] = earlier or patient
        return found or " ".join(key for key, _ in sorted(set(patient) - set(self._patients[exam])))

    def _append(self, file: Path, report_name: str, line: str) -> None:
        own = {"report": harmless(report_name), "file": harmless(str(file))}
        if own["report"] in self._reports or own["file"] in self._files:
            others = [line for line in _lines(self._path) if all(_cell(line, key) != cell for key, cell in own.items())]
            _replace(self._path, others)
        # in one system call, so that lines of several writers are not mixed
        with self._path.open("ab", buffering=0) as file_:
            file_.write(line.encode())
        self._reports[own["report"]] = _content(line)
        self._files.add(own["file"])

    def write_exams(self) -> None:
        """Write exams.csv from all lines of the table, if an exam has several of them. Raises OSError."""
        exams = score_exams(image for line in _lines(self._path) if (image := _image(line)))
        if any_group(exams):
            _replace(self._path.with_name(EXAMS), [csv_line(_exam_row(exam)) for exam in exams], EXAM_COLUMNS)

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


def _maker(report: Report) -> dict[str, str]:
    return {"made_by": made_by(report["provenance"]) if report["status"] == "done" else ""}


def is_table(path: Path) -> bool:
    """Whether any release of glam-deploy wrote this file: it starts with the names of the first columns."""
    columns = {TABLE: COLUMNS, EXAMS: EXAM_COLUMNS}.get(path.name)
    if columns is None:
        return False
    try:
        with open_regular(path) as file:
            return file.read(512).startswith(csv_line(columns[:3]).rstrip("\n").encode())
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


def _image(line: str) -> ViewScores | None:
    """The image of a line of results.csv, WRONG if a cell is not as written; None if its exam is unknown."""
    cells = dict(zip(COLUMNS, _cells(line), strict=True))
    if not cells["exam"]:
        return None
    texts = {score: [cells[f"{score}_{name}"] for name in _CLASSES] for score in _SCORES}
    scores = {
        score: dict(zip(_CLASSES, map(_score, found), strict=True)) for score, found in texts.items() if any(found)
    }
    view, status, differs = cells["view"], cells["status"], cells["headers"]
    is_right = (
        view in ("", *View)
        and status in _STATUSES
        and bool(scores) == bool(cells["made_by"]) == (status == "done")
        and ("y_global" in scores or not scores)
        and all(0 <= value <= 1 for found in scores.values() for value in found.values())
    )
    return ViewScores(
        exam=cells["exam"],
        view=View(view) if view in list(View) else None,
        status=status if is_right else WRONG,
        scores=scores if is_right else {},
        made_by=cells["made_by"],
        differs=() if differs == _NOT_COMPARED else tuple(differs.split()),
        compared=differs != _NOT_COMPARED,
    )


def _score(text: str) -> float:
    """The score in a cell; NaN for another text."""
    try:
        return float(text)
    except ValueError:
        return nan


def _exam_row(exam: ExamScores) -> dict[str, object]:
    levels = {"exam": exam.whole, "left": exam.breasts.get("L", {}), "right": exam.breasts.get("R", {})}
    scores: dict[str, float] = {}
    for level, found in levels.items():
        for name, pooled in found.items():
            scores |= {f"{level}_{name}_mean": shortest(pooled.mean), f"{level}_{name}_maximum": pooled.maximum}
    return {
        "exam": exam.exam,
        "complete": "yes" if exam.complete else "no",
        "remarks": "; ".join(exam.remarks),
        "images": exam.images,
        "views": " ".join(exam.views),
        "score": exam.score,
        "calibrated": "no",
        **{column: scores.get(column, "") for column in EXAM_COLUMNS[7:]},
    }


def csv_line(row: dict[str, object] | Iterable[object]) -> str:
    """One line of a table: text is quoted and harmless (`harmless`), so that it is one cell in every locale."""
    cells = row.values() if isinstance(row, dict) else row
    stream = io.StringIO()
    # all text is quoted, so that cells stay intact in locales with another separator
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in cells])
    return stream.getvalue()


def harmless(text: str) -> str:
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


def _content(line: str) -> int:
    """Hash of all cells but the path of the input, which a later run may spell in another way."""
    return hash(tuple(_cells(line)[1:]))


def _cell(line: str, column: str) -> str:
    return _cells(line)[COLUMNS.index(column)]


def _replace(path: Path, lines: Iterable[str], columns: Sequence[str] = COLUMNS) -> None:
    write_whole(path, "".join([csv_line(columns), *lines]).encode())

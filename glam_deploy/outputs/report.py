"""The JSON report of one image. docs/outputs.md describes the schema."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from glam_deploy.errors import GlamError, InputError, NotForThisNetwork
from glam_deploy.exams import ExamScores, Pooled
from glam_deploy.records import Float32, Notice, Placed, Placement, View

if TYPE_CHECKING:
    from glam_deploy.runtime.result import Result

SCHEMA = "glam-deploy.result"
EXAM_SCHEMA = "glam-deploy.exam"
SCHEMA_VERSION = 1
"""Increased when a key is removed or its meaning changes, not for a new key."""

RESEARCH_USE = "Research use only"
UNCALIBRATED = "Scores are not calibrated probabilities"
STATEMENT = f"{RESEARCH_USE}. {UNCALIBRATED}."

Report = dict[str, Any]


def done(result: "Result", *, arrays_name: str | None, picture_name: str | None) -> Report:
    """The report of an image with a result; file names are relative to the report's folder."""
    return _skeleton("done") | {
        "input": _input(result.input),
        "predictions": {
            name: {label: shortest(value) for label, value in y.items()} for name, y in result.predictions.items()
        },
        "patches": [_patch(result, k) for k in range(len(result.patch_locations))],
        "preprocessing": _preprocessing(result.input.placement),
        "warnings": [_warning(notice) for notice in result.notices],
        "timings_ms": {stage: round(ms, 3) for stage, ms in result.timings_ms.items()},
        "provenance": result.provenance,
        "files": {"arrays": arrays_name, "picture": picture_name},
    }


def failure(name: str, view: View | None, error: GlamError) -> Report:
    """The report of an image without a result: "skipped" for `NotForThisNetwork`, else "failed"."""
    return _skeleton("skipped" if isinstance(error, NotForThisNetwork) else "failed") | {
        "input": {"name": name, "kind": None, "uids": {}, "facts": {}, "view": view, "horizontal_flip": None},
        "error": {"type": type(error).__name__, "message": str(error)},
    }


def exam_report(exam: ExamScores) -> Report:
    """The exam-level result of an exam, as `run --json` prints it."""
    return {
        "schema": EXAM_SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "statement": STATEMENT,
        "exam": exam_content(exam),
    }


def exam_content(exam: ExamScores) -> Report:
    """Scores of an exam and its breasts as JSON values; mean and maximum, not calibrated."""
    return {
        "id": exam.exam,
        "complete": exam.complete,
        "remarks": list(exam.remarks),
        "images": exam.images,
        "views": list(exam.views),
        "score": exam.score or None,
        "scores": _pooled(exam.whole),
        "breasts": {side: _pooled(scores) for side, scores in exam.breasts.items()},
    }


def _pooled(scores: Mapping[str, Pooled]) -> Report:
    return {
        label: {"mean": shortest(pooled.mean), "maximum": shortest(pooled.maximum)} for label, pooled in scores.items()
    }


def plain(report: Report) -> Report:
    """Convert a report to plain dicts, lists, strings and numbers, as parsed from its text. Raises InputError."""
    read: Report = json.loads(to_text(report))
    return read


def to_text(report: Report) -> str:
    """Serialize a report as strict JSON, indented by 2, keys in their order, lists of numbers on one line.

    Raises InputError for a value that JSON cannot represent: NaN, infinity, an object of another library.
    """
    try:
        text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError as error:
        raise InputError(
            f"the report of {report['input']['name']!r} has a NaN or infinite value, which JSON cannot represent, "
            "expected finite scores and header values: check the image's header, and verify the bundle"
        ) from error
    # JSON strings contain no line breaks, so this changes only the layout of lists of numbers
    return re.sub(r"\[\n\s+([-+.\deE,\s]+?)\n\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def _skeleton(status: str) -> Report:
    """A report with all keys in their order, so that all reports have the same keys."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "status": status,
        "statement": STATEMENT,
        "input": None,
        "predictions": None,
        "patches": [],
        "preprocessing": None,
        "warnings": [],
        "timings_ms": {},
        "provenance": {},
        "files": {"arrays": None, "picture": None},
        "error": None,
    }


def _input(placed: Placed) -> Report:
    source, view = placed.source, placed.view
    # a right view that is not stored mirrored faces left and is mirrored for the network; a left view is not
    # for a standardized input it is unknown, because it was mirrored before
    placement = placed.placement
    flip = None if view is None or placement.best_center is None else view.is_right != placement.mirrored
    return {
        "name": source.name,
        "kind": source.kind,
        "uids": source.uids,
        "facts": source.facts,
        "view": view,
        "horizontal_flip": flip,
    }


def _patch(result: "Result", k: int) -> Report:
    return {
        "order": k + 1,
        "network_box": result.patch_boxes[k],
        "source_box": result.patch_boxes_in_source[k],
        "attention": None if result.attention is None else shortest(result.attention[k]),
        **({} if result.saliency_patches is None else {"peak_saliency": _by_class(result, result.saliency_patches[k])}),
    }


def _by_class(result: "Result", maps: Float32) -> Report:
    """Largest value of each class's map. `maps`: float32 [2, rows, columns]."""
    return dict(zip(result.network.classes, map(shortest, maps.max(axis=(1, 2))), strict=True))


def _preprocessing(placement: Placement) -> Report:
    return {
        "source_shape": placement.source_shape,
        "network_shape": placement.network_shape,
        "crop_window": placement.crop_window,
        "best_center": placement.best_center,
        "half_turn": placement.half_turn,
        "mirrored": placement.mirrored,
        "row_shift": placement.row_shift,
        "column_shift": placement.column_shift,
    }


def _warning(notice: Notice) -> Report:
    return {"code": notice.code, "message": notice.message}


def shortest(value: float | np.floating[Any]) -> float:
    """The float64 with the fewest digits that rounds to this float32: 0.3, not 0.30000001192092896."""
    return float(str(np.float32(value)))


def _plain(value: object) -> object:
    """Convert values that `json` does not support: read-only mappings and numpy values. Raises InputError."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise InputError(f"a report has a {type(value).__name__}, expected numbers, text, lists or mappings")

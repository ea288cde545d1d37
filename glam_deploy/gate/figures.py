"""All images together: the figures that a verdict stands on."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from glam_deploy.gate.parity import MAPS, THRESHOLDS, State
from glam_deploy.gate.statistics import auroc, auroc_interval, interval, rank_agreement
from glam_deploy.gate.trial import Row
from glam_deploy.networks import GLAM

Figures = dict[str, Any]

LEAST_TIMED = 3
"""Images from which on a ratio of times says something."""


def figures(rows: Sequence[Row]) -> Figures:
    """JSON-ready. Of at least one image."""
    return {
        "images": len(rows),
        "dice": {name: {label: _dice(rows, name, label) for label in GLAM.classes} for name in MAPS},
        "states": {state.value: _count(rows, state) for state in (State.LOST, State.NEW, State.ALMOST_EMPTY)},
        "judged": _count(rows, State.JUDGED),
        "lost_or_new": sum(_has_lost(row, label) for row in rows for label in GLAM.classes),
        "patches": _patches(rows),
        "scores": {name: _scores(rows, name) for name in rows[0].scores},
        "flips": sum(len(row.flips) for row in rows),
        "flat": {side: sum(row.flat[n] for row in rows) for n, side in enumerate(("candidate", "reference"))},
        "reasons": _reasons(rows),
        "truth": {label: found for label in GLAM.classes if (found := _truth(rows, label))},
        "latency_ms": median(row.latency_ms for row in rows),
        "beside_onnx": _beside_onnx(rows),
    }


def _beside_onnx(rows: Sequence[Row]) -> Figures | None:
    """The candidate's time and that of "onnx" on the same images, in turns, without the first, which warms both up.

    None where there are fewer than LEAST_TIMED others.
    """
    timed = [(row.latency_ms, row.onnx_ms) for row in rows if row.onnx_ms][1:]
    if len(timed) < LEAST_TIMED:
        return None
    mine, onnx = zip(*timed, strict=True)
    return {
        "images": len(timed),
        "latency_ms": median(mine),
        "onnx_ms": median(onnx),
        "times": median(a / b for a, b in timed),
    }


def _dice(rows: Sequence[Row], name: str, label: str) -> list[Figures]:
    """By threshold: how many images were judged, median, its interval, worst; None where none was."""
    (curves,) = zip(*[[p.dice for p in row.maps if (p.map, p.label) == (name, label)] for row in rows], strict=True)
    found = []
    for n, threshold in enumerate(THRESHOLDS):
        values = [value for curve in curves if (value := curve[n]) is not None]
        found.append(
            {
                "threshold": threshold,
                "images": len(values),
                "median": median(values) if values else None,
                "interval": interval(values, np.median),
                "worst": min(values, default=None),
            }
        )
    return found


def _count(rows: Sequence[Row], state: State) -> int:
    """Of all images, maps, classes and thresholds."""
    return sum(parity.states.count(state) for row in rows for parity in row.maps)


def _has_lost(row: Row, label: str) -> bool:
    return any(parity.lost for parity in row.maps if parity.label == label)


def _patches(rows: Sequence[Row]) -> Figures:
    patches = [patch for row in rows for patch in row.patches]
    shares = [sum(p.agrees for p in row.patches) / len(row.patches) for row in rows]
    return {
        "patches": len(patches),
        "same": sum(patch.same for patch in patches),
        "tied": sum(patch.tied for patch in patches),
        "agreement": sum(patch.agrees for patch in patches) / len(patches),
        "interval": interval(shares, np.mean),
        "worst_iou": min(patch.iou for patch in patches),
        "most_moved_px": max(patch.moved_px for patch in patches),
    }


def _scores(rows: Sequence[Row], name: str) -> Figures:
    found = {}
    for index, label in enumerate(GLAM.classes):
        candidate, reference = zip(*[row.scores[name][index] for row in rows], strict=True)
        found[label] = {
            "largest_difference": max(abs(a - b) for a, b in zip(candidate, reference, strict=True)),
            "rank_agreement": rank_agreement(candidate, reference),
            "auroc": _auroc(rows, name, label, index),
        }
    return found


def _auroc(rows: Sequence[Row], name: str, label: str, index: int) -> Figures | None:
    """Of the images that have a mask; None for fewer than ten or where all have one label."""
    known = [(*row.scores[name][index], row.positive[label]) for row in rows if row.positive is not None]
    if not known:
        return None
    candidate, reference, positive = zip(*known, strict=True)
    areas = auroc(candidate, positive), auroc(reference, positive)
    between = auroc_interval(candidate, reference, positive)
    if areas[0] is None or areas[1] is None or between is None:
        return None
    return {"candidate": areas[0], "reference": areas[1], "difference": areas[0] - areas[1], "interval": between}


def _truth(rows: Sequence[Row], label: str) -> Figures | None:
    """Dice against the masks at the threshold where the reference is best on average, both sides at the same one."""
    curves = np.array([row.truth[label] for row in rows if label in row.truth])
    if not len(curves):
        return None
    best = int(curves[:, :, 1].mean(axis=0).argmax())
    candidate, reference = curves[:, best, 0], curves[:, best, 1]
    return {
        "threshold": THRESHOLDS[best],
        "images": len(curves),
        "candidate": float(candidate.mean()),
        "reference": float(reference.mean()),
        "difference": float((candidate - reference).mean()),
        "interval": interval((candidate - reference).tolist(), np.mean),
    }


def _reasons(rows: Sequence[Row]) -> dict[str, int]:
    named = [reason for row in rows for reason in row.reasons]
    return {reason: named.count(reason) for reason in sorted(set(named))}

"""What a rung's speed costs: its answers against the published way's, on the same images."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from glam_bench.bench.schema import ByThreshold, Case, Parity
from glam_deploy.gate import parity as parity_of_gate
from glam_deploy.metrics import dice
from glam_deploy.networks import GLAM
from glam_deploy.runtime.agreement import Answer, compared, fused

THRESHOLDS = tuple(str(threshold) for threshold in parity_of_gate.THRESHOLDS)
Summary = Callable[[Iterable[float]], float]


def parity(names: Sequence[str], found: Sequence[Answer], expected: Sequence[Answer]) -> Parity:
    """All images of one rung."""
    rows = [compared(a, b) for a, b in zip(found, expected, strict=True)]
    curves = [_curves(a, b) for a, b in zip(found, expected, strict=True)]
    outputs = rows[0]["largest_difference"]
    return Parity(
        dice=_over_images(curves, median),
        worst_dice=_over_images(curves, min),
        same_patches=sum(row["same_patches"] for row in rows),
        cases=len(rows),
        max_difference={name: max(row["largest_difference"][name] for row in rows) for name in outputs},
        per_case=[_case(name, row) for name, row in zip(names, rows, strict=True)],
    )


def read_answers(folder: Path) -> list[Answer]:
    """As a child has written them, in the order of the images."""
    answers = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            answers.append(dict(file))
    return answers


def _case(name: str, row: dict[str, Any]) -> Case:
    return Case(case=name, same_patches=row["same_patches"], moved_pixels=row["moved_pixels"], dice=dict(row["dice"]))


def _curves(found: Answer, expected: Answer) -> dict[str, ByThreshold]:
    """Class -> threshold -> Dice of one image's fused maps."""
    a, b = fused(found), fused(expected)
    return {
        name: {t: dice(a[i] >= float(t), b[i] >= float(t)) for t in THRESHOLDS} for i, name in enumerate(GLAM.classes)
    }


def _over_images(curves: Sequence[dict[str, ByThreshold]], summary: Summary) -> dict[str, ByThreshold]:
    def one(name: str, threshold: str) -> float | None:
        values = [v for curve in curves if (v := curve[name][threshold]) is not None]
        return summary(values) if values else None

    return {name: {t: one(name, t) for t in THRESHOLDS} for name in GLAM.classes}

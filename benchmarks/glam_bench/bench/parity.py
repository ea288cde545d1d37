"""A rung's answers against those of the published way, on the same images."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from glam_bench.bench.schema import ByThreshold, Case, Parity
from glam_deploy.agreement.answers import Answer, Differences, differences, fused_dice
from glam_deploy.agreement.limits import THRESHOLDS
from glam_deploy.networks import NetworkSpec

Summary = Callable[[Iterable[float]], float]
Curves = dict[str, Sequence[float | None]]


def parity(names: Sequence[str], found: Sequence[Answer], expected: Sequence[Answer], network: NetworkSpec) -> Parity:
    """All images of one rung."""
    pairs = list(zip(found, expected, strict=True))
    rows = [differences(a, b, network) for a, b in pairs]
    curves = [fused_dice(a, b, network) for a, b in pairs]
    return Parity(
        dice=_over_images(curves, median),
        worst_dice=_over_images(curves, min),
        same_patches=sum(row.same_patches for row in rows),
        cases=len(rows),
        max_difference={name: max(row.largest_difference[name] for row in rows) for name in rows[0].largest_difference},
        per_case=[_case(name, row) for name, row in zip(names, rows, strict=True)],
    )


def read_answers(folder: Path) -> list[Answer]:
    """As a child has written them, in the order of the images."""
    answers: list[Answer] = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            answers.append(dict(file))
    return answers


def _case(name: str, row: Differences) -> Case:
    return Case(case=name, same_patches=row.same_patches, moved_pixels=row.moved_pixels, dice=dict(row.dice))


def _over_images(curves: Sequence[Curves], summary: Summary) -> dict[str, ByThreshold]:
    """Class -> threshold -> summary of the images that have a Dice there; None where none has."""
    found: dict[str, ByThreshold] = {}
    for name in curves[0]:
        known = [[v for v in at if v is not None] for at in zip(*(curve[name] for curve in curves), strict=True)]
        found[name] = {str(t): summary(v) if v else None for t, v in zip(THRESHOLDS, known, strict=True)}
    return found

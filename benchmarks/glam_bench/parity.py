"""Results of an engine compared with reference results for the same images. The comparison itself is `agreement`'s."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from glam_bench.schema import ByThreshold, Parity
from glam_bench.schema import Case as CaseOfRung
from glam_deploy.agreement.answers import Answer, Differences, answer, differences, fused_dice
from glam_deploy.agreement.image import ImageAgreement, compare_answers, on_reference_patches
from glam_deploy.agreement.limits import THRESHOLDS, Limits
from glam_deploy.agreement.verdict import judge
from glam_deploy.engines.base import Engine
from glam_deploy.networks import NetworkSpec
from glam_deploy.preprocess import prepare
from glam_deploy.records import Mammogram, NetworkInput
from glam_deploy.runtime.pipeline import Pipeline

LIMITS = Limits()
"""The default limits of the gate."""

Curves = dict[str, Sequence[float | None]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One view through a candidate, compared with the reference."""

    name: str
    differences: Differences
    agreement: ImageAgreement

    def to_json(self) -> dict[str, Any]:
        return {"case": self.name, **asdict(self.differences), "reasons": list(self.agreement.reasons)}


def case(
    pipeline: Pipeline, local: Engine, view: Mammogram | NetworkInput, expected: Answer, network: NetworkSpec
) -> Case:
    """Run one view through the pipeline of a candidate and compare it with the reference's outputs.

    `local`: the candidate's local stage, which is run on the reference's patches where patches moved.
    """
    found = answer(pipeline(view))
    off = differences(found, expected, network)
    forced = None
    if not off.same_patches:
        image = (view if isinstance(view, NetworkInput) else prepare(view)).image
        forced = on_reference_patches(local, image, found, expected)
    agreement = compare_answers(found, expected, network, LIMITS, forced=forced)
    return Case(name=view.source.name, differences=off, agreement=agreement)


def summary(cases: Sequence[Case]) -> dict[str, Any]:
    """All cases of one K, for a record; "verdict" is that of the gate with its default limits."""
    found = [case.differences for case in cases]
    dices = {name: [dice for d in found if (dice := d.dice[name]) is not None] for name in found[0].dice}
    return {
        "verdict": judge([case.agreement for case in cases], LIMITS).to_json(),
        "same_patches": sum(d.same_patches for d in found),
        "worst_dice": {name: min(values, default=None) for name, values in dices.items()},
        "largest_difference": _largest(found),
        "cases": [case.to_json() for case in cases],
    }


def parity(names: Sequence[str], found: Sequence[Answer], expected: Sequence[Answer], network: NetworkSpec) -> Parity:
    """All images of one rung of the ladder, for bench.json: numbers without a verdict. `names`: of the images."""
    pairs = list(zip(found, expected, strict=True))
    rows = [differences(a, b, network) for a, b in pairs]
    curves = [fused_dice(a, b, network) for a, b in pairs]
    return Parity(
        dice=_over_images(curves, median),
        worst_dice=_over_images(curves, min),
        same_patches=sum(row.same_patches for row in rows),
        cases=len(rows),
        max_difference=_largest(rows),
        per_case=[_case_of_rung(name, row) for name, row in zip(names, rows, strict=True)],
    )


def read_answers(folder: Path) -> list[Answer]:
    """The results that a child of the ladder has written, in the order of the images."""
    answers: list[Answer] = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            answers.append(dict(file))
    return answers


def _largest(rows: Sequence[Differences]) -> dict[str, float]:
    """Output -> largest absolute difference of any image; NaN where there is one, which `max` might drop."""
    return {name: float(np.max([row.largest_difference[name] for row in rows])) for name in rows[0].largest_difference}


def _case_of_rung(name: str, row: Differences) -> CaseOfRung:
    return CaseOfRung(case=name, same_patches=row.same_patches, moved_pixels=row.moved_pixels, dice=dict(row.dice))


def _over_images(curves: Sequence[Curves], summarize: Callable[[Iterable[float]], float]) -> dict[str, ByThreshold]:
    """Class -> threshold -> summary of the images that have a Dice there; None where none has."""
    found: dict[str, ByThreshold] = {}
    for name in curves[0]:
        known = [[v for v in at if v is not None] for at in zip(*(curve[name] for curve in curves), strict=True)]
        found[name] = {str(t): summarize(v) if v else None for t, v in zip(THRESHOLDS, known, strict=True)}
    return found

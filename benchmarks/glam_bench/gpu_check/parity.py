"""One engine against the reference on the GPU: every case, what differs, and the verdict that the gate would give."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from glam_bench.gpu_check.context import Context
from glam_bench.gpu_check.opening import open_engine, pipeline_of
from glam_deploy.agreement.answers import Answer, Differences, answer, differences
from glam_deploy.agreement.golden import check_golden, golden_patches
from glam_deploy.agreement.image import ImageAgreement, compare_answers, on_reference_patches
from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.verdict import judge
from glam_deploy.bundle import open_bundle
from glam_deploy.engines.base import Engine
from glam_deploy.networks import NetworkSpec
from glam_deploy.preprocess import prepare
from glam_deploy.records import Mammogram, NetworkInput
from glam_deploy.runtime.pipeline import Pipeline

LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One view."""

    name: str
    differences: Differences
    agreement: ImageAgreement

    def to_json(self) -> dict[str, Any]:
        return {"case": self.name, **asdict(self.differences), "reasons": list(self.agreement.reasons)}


def run(context: Context) -> None:
    """The golden case against the bundle's outputs for it, then each case and K that `reference` has computed."""
    from glam_bench.gpu_check import reference

    opened = open_engine(context)
    bundle = open_bundle(context.bundle)
    rows = check_golden(bundle, pipeline_of(opened, golden_patches(bundle)))
    context.add(golden={row.name: row.max_abs for row in rows})
    for k in reference.DEPTHS:
        pipeline = pipeline_of(opened, k)
        paths = sorted(reference.folder(context.options).glob(f"*.k{k}.npz"))
        local = opened.engines["local"]
        cases = [case(pipeline, local, *reference.read(path), bundle.network) for path in paths]
        if cases:
            context.add(**{f"k={k}": summary(cases)})


def case(
    pipeline: Pipeline, local: Engine, view: Mammogram | NetworkInput, expected: Answer, network: NetworkSpec
) -> Case:
    """One view through the candidate's pipeline, against the reference's outputs.

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
    """All cases of one K, JSON-ready; "verdict" is that of the gate with its default limits."""
    found = [case.differences for case in cases]
    dices = {name: [dice for d in found if (dice := d.dice[name]) is not None] for name in found[0].dice}
    outputs = found[0].largest_difference
    return {
        "verdict": judge([case.agreement for case in cases], LIMITS).to_json(),
        "same_patches": sum(d.same_patches for d in found),
        "worst_dice": {name: min(values, default=None) for name, values in dices.items()},
        "largest_difference": {name: float(np.max([d.largest_difference[name] for d in found])) for name in outputs},
        "cases": [case.to_json() for case in cases],
    }

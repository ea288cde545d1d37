"""One engine against the reference, case by case, and why where they differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glam_bench.gpu_check.context import Context
from glam_bench.gpu_check.opening import open_engine, pipeline_of
from glam_deploy.bundle import open_bundle
from glam_deploy.engines.base import Engine
from glam_deploy.networks import GLAM
from glam_deploy.preprocess import prepare
from glam_deploy.records import Mammogram, NetworkInput
from glam_deploy.runtime.agreement import Answer, answer, compared, is_close, reasons
from glam_deploy.runtime.golden import check_golden, golden_patches
from glam_deploy.runtime.pipeline import Pipeline


def run(context: Context) -> None:
    """The golden case against what the bundle holds of it, then each case and K that `reference` has computed."""
    from glam_bench.gpu_check import reference

    opened = open_engine(context)
    bundle = open_bundle(context.bundle)
    rows = check_golden(bundle, pipeline_of(opened, golden_patches(bundle)))
    context.add(golden={row.name: row.max_abs for row in rows})
    for k in reference.DEPTHS:
        pipeline = pipeline_of(opened, k)
        paths = sorted(reference.folder(context.options).glob(f"*.k{k}.npz"))
        cases = [case(pipeline, opened.engines["local"], *reference.read(path)) for path in paths]
        if cases:
            context.add(**{f"k={k}": summary(cases)})


def case(pipeline: Pipeline, local: Engine, view: Mammogram | NetworkInput, expected: Answer) -> dict[str, Any]:
    """One view, JSON-ready; `reasons` where it is not close."""
    found = answer(pipeline(view))
    row = {"case": view.source.name, **compared(found, expected)}
    if is_close(row):
        return row | {"reasons": []}
    image = (view if isinstance(view, NetworkInput) else prepare(view)).image
    return row | {"reasons": reasons(local, image, found, expected)}


def summary(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All cases of one K together."""
    dices = {name: [c["dice"][name] for c in cases if c["dice"][name] is not None] for name in GLAM.classes}
    outputs = cases[0]["largest_difference"]
    return {
        "same_patches": sum(c["same_patches"] for c in cases),
        "worst_dice": {name: min(values, default=None) for name, values in dices.items()},
        "largest_difference": {name: float(np.max([c["largest_difference"][name] for c in cases])) for name in outputs},
        "cases": list(cases),
    }

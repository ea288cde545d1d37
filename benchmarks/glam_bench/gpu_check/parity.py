"""One engine against the reference, case by case, and why where they differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_bench.gpu_check import reference
from glam_bench.gpu_check.context import Context
from glam_bench.gpu_check.opening import open_engine, pipeline_of
from glam_bench.gpu_check.soak import Answer, answer
from glam_deploy import spec
from glam_deploy.bundle import open_bundle
from glam_deploy.metrics import dice
from glam_deploy.patches import host
from glam_deploy.runtime.golden import check_golden, golden_patches

THRESHOLD = 0.5
"""Of the fused map, above which a pixel counts as a lesion's."""


def run(context: Context) -> None:
    """The golden case against what the bundle holds of it, then each case and K that `reference` has computed."""
    opened = open_engine(context)
    bundle = open_bundle(context.bundle)
    rows = check_golden(bundle, pipeline_of(opened, golden_patches(bundle)))
    context.add(golden={row.name: row.max_abs for row in rows})
    folder = reference.folder(context.options)
    for k in reference.DEPTHS:
        paths = sorted(folder.glob(f"*.k{k}.npz"))
        if not paths:
            continue
        pipeline = pipeline_of(opened, k)
        cases = []
        for path in paths:
            view, expected = reference.read(path)
            cases.append({"case": view.source.name, **compared(answer(pipeline(view)), expected)})
        context.add(**{f"k={k}": summary(cases)})


def summary(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All cases of one K together."""
    dices = {name: [c["dice"][name] for c in cases if c["dice"][name] is not None] for name in spec.CLASSES}
    return {
        "same_patches": sum(case["same_patches"] for case in cases),
        "worst_dice": {name: min(values, default=None) for name, values in dices.items()},
        "largest_difference": {
            name: float(np.max([case["largest_difference"][name] for case in cases]))
            for name in cases[0]["largest_difference"]
        },
        "cases": list(cases),
    }


def compared(found: Answer, expected: Answer) -> dict[str, Any]:
    """One case. Differences of patches that lie elsewhere say nothing about the local network, and are told all the
    same; Dice is of the fused map at THRESHOLD, None where neither has a pixel of the class."""
    masks = lesions(found), lesions(expected)
    moved = np.abs(found["patch_locations"] - expected["patch_locations"]).max()
    values = [name for name in expected if name != "patch_locations"]
    return {
        "same_patches": bool(moved == 0),
        "moved_pixels": int(moved),
        "dice": {name: dice(masks[0][c], masks[1][c]) for c, name in enumerate(spec.CLASSES)},
        "lesion_cells": {name: int(masks[1][c].sum()) for c, name in enumerate(spec.CLASSES)},
        "largest_difference": {name: float(np.abs(found[name] - expected[name]).max()) for name in values},
        "reasons": [],
    }


def lesions(arrays: Answer) -> NDArray[np.bool_]:
    """Where the fused map is above THRESHOLD, on the grid on which it is constant: bool [2, 736, 480]."""
    parts = (arrays[name] for name in ("saliency_global", "saliency_patches", "patch_locations"))
    return host.fuse(*parts) >= THRESHOLD

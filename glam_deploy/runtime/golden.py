"""The case inside a bundle: one raw view and the reference's outputs for it, to re-check an engine on any machine."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import Engine
from glam_deploy.engines.precision import by_stage, coarsest
from glam_deploy.metrics import Comparison, compare
from glam_deploy.networks import GLAM, STAGES, Stage
from glam_deploy.patches import host
from glam_deploy.patches.ties import are_tied
from glam_deploy.preprocess import prepare
from glam_deploy.records import Int64, Mammogram, Patches, Source, View
from glam_deploy.runtime import stages
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result

GOLDEN_FILE = "golden/case.npz"
COMPARED: Mapping[str, tuple[Stage, ...]] = MappingProxyType(
    {
        "patch_locations": ("global",),
        "y_global": ("global", "fusion"),
        "y_scale": ("global",),
        "y_local": ("local", "fusion"),
        "y_fusion": STAGES,
        "attention": ("local", "fusion"),
        "saliency_global": ("global",),
        "saliency_patches": ("local",),
    }
)
"""Fields of Result that a golden case holds -> the stages whose arithmetic is in them."""


def write_golden(path: Path, mammogram: Mammogram, expected: Result) -> None:
    """Save a raw view and what the reference makes of it."""
    arrays = {name: value for name in COMPARED if (value := getattr(expected, name)) is not None}
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, pixels=mammogram.pixels, view=np.array(mammogram.view.value), **arrays)


def golden_patches(bundle: Bundle) -> int:
    """How many patches the golden case was made with."""
    return int(bundle.manifest["golden"]["patches"])


def check_golden(bundle: Bundle, pipeline: Pipeline) -> list[Comparison]:
    """Run the bundle's golden case, preprocessing included, and hold each output against the reference's.

    The limits of an output are those of the coarsest precision among the stages that compute it, as the engine's
    provenance names them (`engines.precision`). Patches must lie where the reference's do. Where the global stage
    computes in less than FP32, the gate's rule for ties holds too (`patches.ties`): a tied patch counts as the
    reference's, and what depends on the patches is computed for those of the reference, as in the gate.
    `pipeline.patches` must be `golden_patches(bundle)`.
    """
    precisions = by_stage(pipeline.provenance["engine"].get("precision", "fp32"))
    with np.load(io.BytesIO(bundle.read(GOLDEN_FILE)), allow_pickle=False) as file:
        case = dict(file)
    view = Mammogram(
        pixels=case["pixels"], view=View(str(case["view"])), source=Source(name="golden case", kind="array")
    )
    result = pipeline(view)
    found = {name: getattr(result, name) for name in COMPARED if name in case}
    tied = 0 if precisions["global"] == "fp32" else _tied(found, case)
    if tied:
        found |= _on_patches(pipeline.engines, view, case["patch_locations"])
    rows = [
        compare(name, values, case[name], precision=coarsest(precisions[stage] for stage in COMPARED[name]))
        for name, values in found.items()
    ]
    return [replace(row, tied=tied) if row.name == "patch_locations" else row for row in rows]


def _tied(found: Mapping[str, Any], expected: Mapping[str, Any]) -> int:
    """How many patches lie elsewhere, all of them tied; 0 where any is not."""
    places = found["patch_locations"]
    if places.shape != expected["patch_locations"].shape:
        return 0
    moved = (places != expected["patch_locations"]).any(axis=1)
    agree = all(
        tie or not off for tie, off in zip(are_tied(places, expected["saliency_global"], GLAM), moved, strict=True)
    )
    return int(moved.sum()) if agree else 0


def _on_patches(engines: Mapping[Stage, Engine], view: Mammogram, locations: Int64) -> dict[str, Any]:
    """What an engine makes of these patches: the fields of Result that depend on them."""
    image = prepare(view).image
    maps = stages.run_global(engines["global"], image[None, None])
    pixels, flat = (
        host.crop(image, locations, GLAM.patches.side)[None],
        host.contrast_stretch(maps.saliency[0])[1][None],
    )
    patches = Patches(locations=locations[None], pixels=pixels, flat=flat)
    local = stages.run_local(engines["local"], patches)
    scores = stages.run_fusion(engines["fusion"], maps, patches, local)
    values: dict[str, Any] = {"y_local": scores.y_local, "y_fusion": scores.y_fusion, "attention": scores.attention}
    values |= {"saliency_patches": local.saliency, "patch_locations": patches.locations}
    return {name: value[0] for name, value in values.items() if value is not None}

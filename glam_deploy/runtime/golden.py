"""The case inside a bundle: one raw view and the reference's outputs for it, to re-check an engine on any machine."""

import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from glam_deploy.bundle import Bundle
from glam_deploy.engines.precision import by_stage, coarsest
from glam_deploy.metrics import Comparison, compare
from glam_deploy.records import Mammogram, Source, View
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result
from glam_deploy.spec import STAGES, Stage

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
    provenance names them (`engines.precision`). `pipeline.patches` must be `golden_patches(bundle)`.
    """
    precisions = by_stage(pipeline.provenance["engine"].get("precision", "fp32"))
    with np.load(io.BytesIO(bundle.read(GOLDEN_FILE)), allow_pickle=False) as case:
        source = Source(name="golden case", kind="array")
        view = View(str(case["view"]))
        result = pipeline(Mammogram(pixels=case["pixels"], view=view, source=source))
        return [
            compare(name, getattr(result, name), case[name], precision=coarsest(precisions[s] for s in stages))
            for name, stages in COMPARED.items()
            if name in case
        ]

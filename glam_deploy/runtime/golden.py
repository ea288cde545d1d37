"""The case inside a bundle: one raw view and the reference's outputs for it, to re-check an engine on any machine."""

import io
from pathlib import Path

import numpy as np

from glam_deploy.bundle import Bundle
from glam_deploy.metrics import Comparison, compare
from glam_deploy.records import Mammogram, Source, View
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result

GOLDEN_FILE = "golden/case.npz"
COMPARED = (
    "patch_locations",
    "y_global",
    "y_scale",
    "y_local",
    "y_fusion",
    "attention",
    "saliency_global",
    "saliency_patches",
)
"""Fields of Result that a golden case holds."""


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

    The limits are those of the precision that the engine names in its provenance. `pipeline.patches` must be
    `golden_patches(bundle)`.
    """
    precision = pipeline.provenance["engine"].get("precision", "fp32")
    with np.load(io.BytesIO(bundle.read(GOLDEN_FILE)), allow_pickle=False) as case:
        source = Source(name="golden case", kind="array")
        view = View(str(case["view"]))
        result = pipeline(Mammogram(pixels=case["pixels"], view=view, source=source))
        names = [name for name in COMPARED if name in case]
        return [compare(name, getattr(result, name), case[name], precision=precision) for name in names]

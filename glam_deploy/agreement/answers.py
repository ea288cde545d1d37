"""The outputs of one image that are compared, and how far two sets of them are apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.agreement.limits import THRESHOLDS
from glam_deploy.agreement.metrics import dice
from glam_deploy.networks import STAGES, NetworkSpec, Stage
from glam_deploy.records import Float32
from glam_deploy.runtime import patching
from glam_deploy.runtime.result import Result

Answer = Mapping[str, NDArray[Any]]
"""Fields of a `Result` by name, those of COMPARED that its network has."""

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
"""Fields of Result that are compared -> the stages whose arithmetic is in them."""

THRESHOLD = 0.5
"""Saliency of the fused map from which `Differences` count a cell as part of a lesion; one of THRESHOLDS."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """How far two answers are apart, in plain numbers that no limit is applied to; JSON-ready by `asdict`.

    Where patches lie at different places, differences of their maps say nothing about the local network.
    """

    same_patches: bool
    moved_pixels: int
    """Largest distance along one axis between patches of the same rank, in input pixels."""
    dice: Mapping[str, float | None]
    """Class -> Dice of the fused maps at THRESHOLD; None where neither has a cell there."""
    lesion_cells: Mapping[str, int]
    """Class -> cells of the reference's fused map at or above THRESHOLD."""
    largest_difference: Mapping[str, float]
    """Output -> largest absolute difference; NaN where a value is NaN."""


def answer(result: Result) -> Answer:
    """The outputs of a result that are compared."""
    return {name: values for name in COMPARED if (values := getattr(result, name)) is not None}


def differences(found: Answer, expected: Answer, network: NetworkSpec) -> Differences:
    """How far the outputs `found` are from those of the reference."""
    moved = int(np.abs(found["patch_locations"] - expected["patch_locations"]).max(initial=0))
    lesions = [fused(arrays, network) >= np.float32(THRESHOLD) for arrays in (found, expected)]
    return Differences(
        same_patches=moved == 0,
        moved_pixels=moved,
        dice={name: dice(a, b) for name, a, b in zip(network.classes, *lesions, strict=True)},
        lesion_cells=dict(zip(network.classes, lesions[1].sum((1, 2)).tolist(), strict=True)),
        largest_difference=largest_differences(found, expected),
    )


def largest_differences(found: Answer, expected: Answer) -> dict[str, float]:
    """Output -> largest absolute difference, of all outputs but patch places; NaN where a value is NaN."""
    values = [name for name in expected if name != "patch_locations"]
    return {name: float(np.abs(found[name] - expected[name]).max()) for name in values}


def fused_dice(found: Answer, expected: Answer, network: NetworkSpec) -> dict[str, Sequence[float | None]]:
    """Class -> Dice of the fused maps at each of THRESHOLDS, None where both are empty: no area is too small here."""
    a, b = fused(found, network), fused(expected, network)
    levels = [np.float32(threshold) for threshold in THRESHOLDS]
    return {
        name: [dice(a[index] >= level, b[index] >= level) for level in levels]
        for index, name in enumerate(network.classes)
    }


def fused(arrays: Answer, network: NetworkSpec) -> Float32:
    """The fused map on the coarsest grid that holds it (`NetworkSpec.grid_shape`): float32 [C, rows, columns], 0..1."""
    patches = arrays.get("saliency_patches")
    return patching.fuse(arrays["saliency_global"], patches, arrays["patch_locations"], network)

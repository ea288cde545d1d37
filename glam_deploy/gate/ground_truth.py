"""Ground truth: labels and lesion masks of an image, and the Dice of saliency maps against the masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glam_deploy.agreement.limits import THRESHOLDS
from glam_deploy.agreement.metrics import dice
from glam_deploy.images.image_files import MASK_ENDING, MASK_VALUES
from glam_deploy.networks import NetworkSpec
from glam_deploy.runtime.result import Result

Mask = NDArray[np.uint8]
"""As `image_files.read_mask`."""


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """What is known of one image."""

    positive: Mapping[str, bool | None]
    """Class -> whether the image has it; None if unknown."""
    outlines: Mapping[str, NDArray[np.bool_]]
    """Class -> its area, bool [rows, columns], source frame; the areas of two classes may overlap."""


def is_mask_name(path: Path) -> bool:
    """Whether a file has the name of a mask and is therefore not a mammogram."""
    return path.stem.lower().endswith(MASK_ENDING)


def ground_truth_of(mask: Mask) -> GroundTruth:
    """The ground truth that a mask of `read_mask` states: an image has a class if the mask has pixels of it."""
    outlines = {name: mask == value for name, value in MASK_VALUES.items()}
    return GroundTruth(positive={name: bool(area.any()) for name, area in outlines.items()}, outlines=outlines)


def ground_truth_dice(result: Result, truth: GroundTruth, network: NetworkSpec) -> dict[str, list[float]]:
    """Class with a mask -> Dice of the fused map against the mask at each of THRESHOLDS, in the source frame."""
    saliency = result.saliency_in_source()
    return {
        name: [_dice(saliency[index] >= np.float32(threshold), truth.outlines[name]) for threshold in THRESHOLDS]
        for index, name in enumerate(network.classes)
        if name in truth.outlines and truth.outlines[name].any()
    }


def _dice(found: NDArray[np.bool_], outline: NDArray[np.bool_]) -> float:
    value = dice(found, outline)
    assert value is not None  # the outline is not empty
    return value

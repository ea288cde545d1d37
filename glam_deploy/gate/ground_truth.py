"""Ground truth: labels and lesion masks of an image, and the Dice of saliency maps against the masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glam_deploy.agreement.limits import THRESHOLDS
from glam_deploy.agreement.metrics import dice
from glam_deploy.errors import InputError
from glam_deploy.images.image_files import read_pixels
from glam_deploy.networks import NetworkSpec
from glam_deploy.runtime.result import Result

MASK_ENDING = "_mask"
VALUES = {"benign": 100, "malignant": 200}
"""Class -> grey value in a mask; 0 is background."""

Mask = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """What is known of one image."""

    positive: Mapping[str, bool | None]
    """Class -> whether the image has it; None if unknown."""
    outlines: Mapping[str, NDArray[np.bool_]]
    """Class -> its area, bool [rows, columns], source frame; the areas of two classes may overlap."""


def find_mask(folder: Path, image: Path) -> Path | None:
    """The mask of an image: the PNG <stem>_mask.png in `folder`, else <stem>.png; None if there is none.

    An image is never its own mask, so that images and masks may be in one folder.
    """
    paths = (folder / f"{image.stem}{ending}.png" for ending in (MASK_ENDING, ""))
    return next((path for path in paths if path.is_file() and not path.samefile(image)), None)


def is_mask_name(path: Path) -> bool:
    """Whether a file has the name of a mask and is therefore not a mammogram."""
    return path.stem.lower().endswith(MASK_ENDING)


def read_mask(path: Path, shape: tuple[int, ...]) -> Mask:
    """Read a mask in the source frame: uint8 [rows, columns] with 0, 100 (benign) and 200 (malignant).

    `shape`: shape of the image. Raises InputError for other shapes and values, and for files that
    `images.image_files.read_pixels` rejects.
    """
    try:
        mask, _, _ = read_pixels(path)
    except InputError as error:
        raise InputError(f"the mask {path.name} cannot be used: {error}", *error.remedies) from error
    if mask.shape != tuple(shape):
        raise InputError(
            f"the mask {path.name} is {list(mask.shape)}, expected a grey PNG of the image's {list(shape)}"
        )
    if strange := sorted(set(np.unique(mask).tolist()) - {0, *VALUES.values()}):
        raise InputError(f"the mask {path.name} has values {strange[:5]}, expected 0, 100 (benign), 200 (malignant)")
    return np.asarray(mask, np.uint8)


def ground_truth_of(mask: Mask) -> GroundTruth:
    """The ground truth that a mask of `read_mask` states: an image has a class if the mask has pixels of it."""
    outlines = {name: mask == value for name, value in VALUES.items()}
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

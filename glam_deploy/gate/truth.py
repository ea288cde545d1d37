"""Outlines that people drew: which classes an image holds, and how well a map covers them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy import image_codec, spec
from glam_deploy.errors import InputError, disk_reason
from glam_deploy.gate.parity import THRESHOLDS
from glam_deploy.image_structure import REMEDY, sound_png
from glam_deploy.metrics import dice
from glam_deploy.runtime.result import Result

MASK_ENDING = "_mask"
VALUES = {"benign": 100, "malignant": 200}
"""Grey of each class in a mask; 0 is everything else."""

Mask = NDArray[np.uint8]


def find_mask(folder: Path, image: Path) -> Path | None:
    """The mask of an image: a PNG in `folder` of the same name with "_mask" after it, else of the same name.

    An image is never its own mask, so that both may lie in one folder.
    """
    places = (folder / f"{image.stem}{ending}.png" for ending in (MASK_ENDING, ""))
    return next((place for place in places if place.is_file() and not place.samefile(image)), None)


def is_mask_name(path: Path) -> bool:
    """Whether a file is named like a mask, and so is no mammogram."""
    return path.stem.lower().endswith(MASK_ENDING)


def read_mask(path: Path, shape: tuple[int, ...]) -> Mask:
    """A mask in the source frame: uint8 [rows, columns] of 0, 100 (benign) and 200 (malignant).

    `shape`: that of the image. Raises InputError for other shapes and values.
    """
    mask = _decoded(path)
    if mask.shape != tuple(shape):
        found = f"{list(mask.shape)}"
        raise InputError(f"the mask {path.name} is {found}, expected a grey PNG of the image's {list(shape)}")
    if strange := sorted(set(np.unique(mask).tolist()) - {0, *VALUES.values()}):
        raise InputError(f"the mask {path.name} has values {strange[:5]}, expected 0, 100 (benign), 200 (malignant)")
    return np.asarray(mask, np.uint8)


def _decoded(path: Path) -> NDArray[Any]:
    """The pixels of a PNG, whatever channels it has."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"the mask {path.name} cannot be read ({disk_reason(error)}): check the file") from error
    if not content.startswith(b"\x89PNG"):
        raise InputError(f"the mask {path.name} is no PNG: save it as an 8-bit grey PNG")
    try:
        found = image_codec.decode(sound_png(content)[0])
    except InputError as error:
        why = str(error).removesuffix(REMEDY)
        raise InputError(f"the mask {path.name} cannot be read, {why}save it again as an 8-bit grey PNG") from None
    if found.pixels is None or found.messages:
        why = "; ".join(found.messages) or "no image"
        raise InputError(f"the mask {path.name} is damaged ({why}): save it again as an 8-bit grey PNG")
    return found.pixels


def classes_in(mask: Mask) -> dict[str, bool]:
    """Class -> whether the mask has a pixel of it."""
    return {name: bool((mask == VALUES[name]).any()) for name in spec.CLASSES}


def truth_dice(result: Result, mask: Mask) -> dict[str, list[float]]:
    """Of each class in the mask, Dice of the fused map against it at each of THRESHOLDS, source frame."""
    saliency = result.saliency_in_source()
    return {
        name: [_dice(saliency[index] >= np.float32(threshold), mask == VALUES[name]) for threshold in THRESHOLDS]
        for index, name in enumerate(spec.CLASSES)
        if (mask == VALUES[name]).any()
    }


def _dice(found: NDArray[np.bool_], outline: NDArray[np.bool_]) -> float:
    value = dice(found, outline)
    assert value is not None  # the outline has a pixel
    return value

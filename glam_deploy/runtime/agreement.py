"""One engine's answer for one view against the reference's, and which part of it is to blame where they differ."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.engines.base import Engine
from glam_deploy.metrics import dice
from glam_deploy.networks import GLAM
from glam_deploy.patches import host
from glam_deploy.records import Float32
from glam_deploy.runtime.golden import COMPARED
from glam_deploy.runtime.result import Result

Answer = dict[str, NDArray[Any]]

THRESHOLD = 0.5
"""Of the fused map, above which a pixel counts as a lesion's."""
DICE = 0.99
"""Agreement of the fused map at THRESHOLD, of each class, that is good enough."""


def answer(result: Result) -> Answer:
    """All that was downloaded."""
    return {name: values for name in COMPARED if (values := getattr(result, name)) is not None}


def compared(found: Answer, expected: Answer) -> dict[str, Any]:
    """How far two answers are apart, JSON-ready. Dice is None where neither has a pixel of the class.

    Differences of patches' maps that lie at other places are told all the same, and say nothing of the local network.
    """
    moved = np.abs(found["patch_locations"] - expected["patch_locations"]).max()
    values = [name for name in expected if name != "patch_locations"]
    return {
        "same_patches": bool(moved == 0),
        "moved_pixels": int(moved),
        "dice": class_dice(found, expected),
        "lesion_cells": dict(zip(GLAM.classes, lesions(expected).sum((1, 2)).tolist(), strict=True)),
        "largest_difference": {name: float(np.abs(found[name] - expected[name]).max()) for name in values},
    }


def is_close(row: dict[str, Any]) -> bool:
    """Of what `compared` says: the same patches and the same lesions. Two maps without a lesion agree."""
    return bool(row["same_patches"]) and _are_close(row["dice"])


def reasons(local: Engine, image: Float32, found: Answer, expected: Answer) -> list[str]:
    """Which parts of an answer, each put into the reference's in the place of its own, move its lesions.

    `local`: the engine's local stage, which is given the reference's patches. `image`: float32 [2944, 1920],
    standardized.
    """
    return blamed(on_reference_patches(local, image, found, expected), found, expected, _lesions_differ)


def on_reference_patches(local: Engine, image: Float32, found: Answer, expected: Answer) -> Float32:
    """The engine's maps of the reference's patches: float32 [K, 2, 128, 128], 0..1.

    What the answer holds is taken where its patch lies at the same place; only patches that moved are computed.
    """
    maps: Float32 = found["saliency_patches"].copy()
    moved = (found["patch_locations"] != expected["patch_locations"]).any(axis=1)
    for slot in np.flatnonzero(moved):
        patch = host.crop(image, expected["patch_locations"][[slot]], GLAM.patches.side)
        maps[slot] = local.run({"patches": patch})["saliency_patches"][0]
    return maps


def blamed(forced: Float32, found: Answer, expected: Answer, differ: Callable[[Answer, Answer], bool]) -> list[str]:
    """Of "patch moved", "global differs", "local differs" those that hold; "fusion differs" where none does.

    `forced`: the engine's maps of the reference's patches. A part is to blame where the reference's answer with that
    part in the place of its own differs from the reference's, as `differ` sees it.
    """
    parts = {
        "global differs": expected | {"saliency_global": found["saliency_global"]},
        "local differs": expected | {"saliency_patches": forced},
    }
    moved = (found["patch_locations"] != expected["patch_locations"]).any()
    named = [name for name, mixed in parts.items() if differ(mixed, expected)]
    return (["patch moved"] if moved else []) + named or ["fusion differs"]


def class_dice(found: Answer, expected: Answer) -> dict[str, float | None]:
    """Dice of the lesions, class by class."""
    return {name: dice(a, b) for name, a, b in zip(GLAM.classes, lesions(found), lesions(expected), strict=True)}


def lesions(arrays: Answer) -> NDArray[np.bool_]:
    """Where the fused map is above THRESHOLD, on the grid on which it is constant: bool [2, 736, 480]."""
    return fused(arrays) >= THRESHOLD


def fused(arrays: Answer) -> Float32:
    """The fused map on the grid on which it is constant: float32 [2, 736, 480], 0..1."""
    return host.fuse(arrays["saliency_global"], arrays["saliency_patches"], arrays["patch_locations"], GLAM)


def _lesions_differ(mixed: Answer, expected: Answer) -> bool:
    return not _are_close(class_dice(mixed, expected))


def _are_close(dices: dict[str, float | None]) -> bool:
    return all(value is None or value >= DICE for value in dices.values())

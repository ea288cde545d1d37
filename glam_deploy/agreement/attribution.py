"""To which part of a candidate a difference belongs: patch places, global stage, local stage, or fusion."""

from collections.abc import Callable

import numpy as np

from glam_deploy.agreement.answers import Answer
from glam_deploy.engines.base import Engine
from glam_deploy.patches import host
from glam_deploy.records import Float32


def on_reference_patches(local: Engine, image: Float32, found: Answer, expected: Answer) -> Float32:
    """The candidate's maps of the reference's patches: float32 [K, C, side, side], 0..1.

    `local`: the candidate's local stage. `image`: float32 [rows, columns], standardized. Maps of patches that lie at
    the reference's place are taken from `found`; only patches that moved are computed.
    """
    maps: Float32 = found["saliency_patches"].copy()
    moved = (found["patch_locations"] != expected["patch_locations"]).any(axis=1)
    for slot in np.flatnonzero(moved):
        patch = host.crop(image, expected["patch_locations"][[slot]], local.network.patches.side)
        maps[slot] = local.run({"patches": patch})["saliency_patches"][0]
    return maps


def attribute(
    found: Answer, expected: Answer, forced: Float32, differ: Callable[[Answer, Answer], bool]
) -> tuple[str, ...]:
    """Of "patch moved", "global differs" and "local differs" those that hold; "fusion differs" where none does.

    Each part of `found` is put into the reference's answer in place of the reference's own. The part is named where
    `differ` says that this changes the answer. `forced`: what `on_reference_patches` gives.
    """
    parts = {
        "global differs": {**expected, "saliency_global": found["saliency_global"]},
        "local differs": {**expected, "saliency_patches": forced},
    }
    moved = (found["patch_locations"] != expected["patch_locations"]).any()
    named = [name for name, mixed in parts.items() if differ(mixed, expected)]
    return tuple((["patch moved"] if moved else []) + named or ["fusion differs"])

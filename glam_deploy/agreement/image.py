"""One image: the candidate's maps, patches, scores and decisions against the reference's, and what differs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from glam_deploy.agreement.answers import Answer
from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.maps import MapAgreement, PatchAgreement, compare_maps, compare_patches
from glam_deploy.engines.base import Engine
from glam_deploy.networks import NetworkSpec, final_score
from glam_deploy.records import Float32
from glam_deploy.runtime import patching


@dataclass(frozen=True, kw_only=True)
class ImageAgreement:
    """All of one image that a verdict depends on; JSON-ready by `asdict`."""

    maps: tuple[MapAgreement, ...]
    patches: tuple[PatchAgreement, ...]
    scores: Mapping[str, tuple[tuple[float, float], ...]]
    """Score -> for each class (candidate, reference)."""
    flips: tuple[str, ...]
    """Decisions that are others, as "y_global malignant"."""
    reasons: tuple[str, ...]
    """What the difference belongs to (`attribute`), or "scores differ"; empty within the limits."""

    @property
    def lowest(self) -> float:
        """Lowest Dice of any map, class and threshold; 0 where a lesion is lost or new."""
        return min(one.lowest for one in self.maps)

    @property
    def same_patches(self) -> bool:
        """Whether the reference could have chosen every patch."""
        return all(patch.agrees for patch in self.patches)

    @property
    def order(self) -> tuple[float, float, int]:
        """Sorts the worst image first."""
        return self.lowest, min((patch.iou for patch in self.patches), default=1.0), -len(self.flips)


def compare_answers(
    found: Answer, expected: Answer, network: NetworkSpec, limits: Limits, *, forced: Float32 | None = None
) -> ImageAgreement:
    """The candidate's outputs `found` against the reference's `expected`.

    `forced`: the candidate's maps of the reference's patches (`on_reference_patches`); None takes the maps
    of `found`, which is right where the patches did not move.
    A map differs, for the attribution, where its lowest Dice is below `limits.dice_median`.
    """
    forced = found.get("saliency_patches") if forced is None else forced
    maps = compare_maps(found, expected, network, forced)
    patches = compare_patches(found, expected, network)
    flipped = flips(found, expected, network, limits.operating_point)

    def differ(mixed: Answer, base: Answer) -> bool:
        return not _within(compare_maps(mixed, base, network), limits)

    if _within(maps, limits) and all(patch.agrees for patch in patches):
        reasons: tuple[str, ...] = ("scores differ",) if flipped else ()
    else:
        reasons = attribute(found, expected, forced, differ)
    return ImageAgreement(
        maps=maps,
        patches=patches,
        scores={name: _pairs(found[name], expected[name]) for name in network.scores if name in expected},
        flips=flipped,
        reasons=reasons,
    )


def flips(found: Answer, expected: Answer, network: NetworkSpec, operating_point: float) -> tuple[str, ...]:
    """Scores whose decision at the operating point is another one, as "y_global malignant".

    The decision is that of y_fusion where the network has it, else of y_global.
    """
    name = final_score(expected)
    other = (found[name] >= operating_point) != (expected[name] >= operating_point)
    return tuple(f"{name} {label}" for label, flipped in zip(network.classes, other, strict=True) if flipped)


def _within(maps: tuple[MapAgreement, ...], limits: Limits) -> bool:
    return all(one.lowest >= limits.dice_median for one in maps)


def _pairs(found: object, expected: object) -> tuple[tuple[float, float], ...]:
    return tuple((float(a), float(b)) for a, b in zip(found, expected, strict=True))  # type: ignore[call-overload]


def on_reference_patches(local: Engine | None, image: Float32, found: Answer, expected: Answer) -> Float32 | None:
    """The candidate's maps of the reference's patches: float32 [K, C, side, side], 0..1; None without such maps.

    `local`: the candidate's local stage, None for a network without it. `image`: float32 [rows, columns], standardized.
    Maps of patches that lie at the reference's place are taken from `found`; only patches that moved are computed.
    """
    if local is None or "saliency_patches" not in found:
        return None
    maps: Float32 = found["saliency_patches"].copy()
    moved = (found["patch_locations"] != expected["patch_locations"]).any(axis=1)
    for slot in np.flatnonzero(moved):
        patch = patching.crop(image, expected["patch_locations"][[slot]], local.network.patches.side)
        maps[slot] = local.run({"patches": patch})["saliency_patches"][0]
    return maps


def attribute(
    found: Answer, expected: Answer, forced: Float32 | None, differ: Callable[[Answer, Answer], bool]
) -> tuple[str, ...]:
    """Of "patch moved", "global differs" and "local differs" those that hold; "fusion differs" where none does.

    Each part of `found` is put into the reference's answer in place of the reference's own. The part is named where
    `differ` says that this changes the answer. `forced`: what `on_reference_patches` gives; None for a
    network without maps of patches, whose local stage changes scores only.
    """
    parts = {
        "global differs": {**expected, "saliency_global": found["saliency_global"]},
        **({} if forced is None else {"local differs": {**expected, "saliency_patches": forced}}),
    }
    moved = (found["patch_locations"] != expected["patch_locations"]).any()
    named = [name for name, mixed in parts.items() if differ(mixed, expected)]
    return tuple((["patch moved"] if moved else []) + named or ["fusion differs"])

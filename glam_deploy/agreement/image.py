"""One image: the candidate's maps, patches, scores and decisions against the reference's, and what differs."""

from collections.abc import Mapping
from dataclasses import dataclass

from glam_deploy.agreement.answers import Answer
from glam_deploy.agreement.attribution import attribute
from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.maps import MapAgreement, compare_maps
from glam_deploy.agreement.ties import PatchAgreement, compare_patches
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import Float32


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
    """What the difference belongs to (`attribution.attribute`), or "scores differ"; empty within the limits."""

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

    `forced`: the candidate's maps of the reference's patches (`attribution.on_reference_patches`); None takes the maps
    of `found`, which is right where the patches did not move.
    A map differs, for the attribution, where its lowest Dice is below `limits.dice_median`.
    """
    forced = found["saliency_patches"] if forced is None else forced
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
    name = "y_fusion" if "y_fusion" in expected else "y_global"
    other = (found[name] >= operating_point) != (expected[name] >= operating_point)
    return tuple(f"{name} {label}" for label, flipped in zip(network.classes, other, strict=True) if flipped)


def _within(maps: tuple[MapAgreement, ...], limits: Limits) -> bool:
    return all(one.lowest >= limits.dice_median for one in maps)


def _pairs(found: object, expected: object) -> tuple[tuple[float, float], ...]:
    return tuple((float(a), float(b)) for a, b in zip(found, expected, strict=True))  # type: ignore[call-overload]

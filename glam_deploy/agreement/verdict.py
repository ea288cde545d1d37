"""All images together: the metrics that a verdict stands on, and the verdict."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from glam_deploy.agreement.image import ImageAgreement
from glam_deploy.agreement.limits import THRESHOLDS, Limits
from glam_deploy.agreement.maps import State
from glam_deploy.agreement.summary import Interval, interval
from glam_deploy.errors import counted


@dataclass(frozen=True, kw_only=True)
class DiceSummary:
    """One map and class at one threshold, over the images that were judged there; None where none was."""

    threshold: float
    images: int
    median: float | None
    interval: Interval | None
    """95 % interval of the median; None for fewer than ten images."""
    worst: float | None


@dataclass(frozen=True, kw_only=True)
class PatchSummary:
    """The patches of all images."""

    patches: int
    same: int
    tied: int
    agreement: float
    """Share that lies at the reference's place, or is tied with it."""
    interval: Interval | None
    """95 % interval of the mean share of an image; None for fewer than ten images."""
    worst_iou: float
    most_moved_px: float


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Of at least one image."""

    images: int
    dice: Mapping[str, Mapping[str, tuple[DiceSummary, ...]]]
    """Map -> class -> threshold by threshold."""
    states: Mapping[str, int]
    """How often a lesion was lost, new, or almost empty, over images, maps, classes and thresholds."""
    judged: int
    """How often Dice was judged, over the same."""
    lost_or_new: int
    """Pairs of image and class in which any map lost a lesion or has a new one."""
    patches: PatchSummary | None
    """None for a network without patches."""
    flips: int
    reasons: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, as a gate's "figures" hold it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a candidate agrees with the reference."""

    metrics: Metrics | None
    """None where no image was compared."""
    failures: tuple[str, ...]
    """Which limits were not kept, one sentence each."""
    limits: Limits

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, as a gate's entry holds it, without the metrics."""
        return {"passed": self.passed, "failures": list(self.failures), "limits": asdict(self.limits)}


def judge(images: Sequence[ImageAgreement], limits: Limits, *, not_computed: int = 0, unreadable: int = 0) -> Verdict:
    """The verdict on the images that were compared.

    `not_computed`: further images on which the candidate gave NaN, infinite numbers or an error. `unreadable`: further
    images that could not be read. Any of either is a failure, and so is no image at all.
    """
    found = metrics(images) if images else None
    failures = [f"{counted(not_computed, 'image')} gave NaN, infinite numbers or an error"] if not_computed else []
    failures += _missed(found, limits) if found else []
    failures += [f"{counted(unreadable, 'image')} could not be read"] if unreadable else []
    if not found and not failures:
        failures = ["no image was compared"]
    return Verdict(metrics=found, failures=tuple(failures), limits=limits)


def metrics(images: Sequence[ImageAgreement]) -> Metrics:
    """What a verdict on at least one image stands on."""
    compared = [(one.map, one.label) for one in images[0].maps]
    labels = dict.fromkeys(label for _, label in compared)
    lost = [any(one.lost for one in image.maps if one.label == label) for image in images for label in labels]
    named = [reason for image in images for reason in image.reasons]
    return Metrics(
        images=len(images),
        dice={
            name: {label: _dice(images, name, label) for label in labels}
            for name in dict.fromkeys(name for name, _ in compared)
        },
        states={state.value: _count(images, state) for state in (State.LOST, State.NEW, State.ALMOST_EMPTY)},
        judged=_count(images, State.JUDGED),
        lost_or_new=sum(lost),
        patches=_patches(images) if images[0].patches else None,
        flips=sum(len(image.flips) for image in images),
        reasons={reason: named.count(reason) for reason in sorted(set(named))},
    )


def _dice(images: Sequence[ImageAgreement], name: str, label: str) -> tuple[DiceSummary, ...]:
    curves = [one.dice for image in images for one in image.maps if (one.map, one.label) == (name, label)]
    found = []
    for n, threshold in enumerate(THRESHOLDS):
        values = [value for curve in curves if (value := curve[n]) is not None]
        found.append(
            DiceSummary(
                threshold=threshold,
                images=len(values),
                median=median(values) if values else None,
                interval=interval(values, np.median),
                worst=min(values, default=None),
            )
        )
    return tuple(found)


def _count(images: Sequence[ImageAgreement], state: State) -> int:
    return sum(one.states.count(state) for image in images for one in image.maps)


def _patches(images: Sequence[ImageAgreement]) -> PatchSummary:
    patches = [patch for image in images for patch in image.patches]
    shares = [sum(patch.agrees for patch in image.patches) / len(image.patches) for image in images]
    return PatchSummary(
        patches=len(patches),
        same=sum(patch.same for patch in patches),
        tied=sum(patch.tied for patch in patches),
        agreement=sum(patch.agrees for patch in patches) / len(patches),
        interval=interval(shares, np.mean),
        worst_iou=min(patch.iou for patch in patches),
        most_moved_px=max(patch.moved_px for patch in patches),
    )


def _missed(found: Metrics, limits: Limits) -> Iterator[str]:
    if not found.judged and not found.lost_or_new:
        yield "no image has a lesion in any map, so nothing was judged: take images with lesions"
    for name, labels in found.dice.items():
        for label, curve in labels.items():
            yield from _missed_dice(f"Dice of the {name} {label} map", curve, limits)
    counts = (("lesions lost or new", found.lost_or_new, limits.lost), ("decisions flipped", found.flips, limits.flips))
    for what, count, limit in counts:
        if count > limit:
            yield f"{what}: {count}, limit {limit}"
    if found.patches and (share := found.patches.agreement) < limits.patch_agreement:
        yield f"patches where the reference could have chosen them: {share:.1%}, limit {limits.patch_agreement:.1%}"


def _missed_dice(what: str, curve: Sequence[DiceSummary], limits: Limits) -> Iterator[str]:
    """Names the threshold with the lowest median, and that with the lowest worst Dice, where they miss the limit."""
    judged = [point for point in curve if point.images]
    for name, limit in (("median", limits.dice_median), ("worst", limits.dice_worst)):
        values = [(float(getattr(point, name)), point.threshold) for point in judged]
        least, threshold = min(values, default=(1.0, 0.0))
        if least < limit:
            yield f"{what} at {threshold}: {name} {least:.4f}, limit {limit}"

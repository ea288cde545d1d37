"""All images together: the metrics that a verdict stands on, and the verdict."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from glam_deploy.agreement.image import ImageAgreement
from glam_deploy.agreement.limits import THRESHOLDS
from glam_deploy.agreement.maps import State
from glam_deploy.agreement.summary import interval
from glam_deploy.bundle.gate_rule import DiceSummary, Limits, Metrics, PatchSummary, missed_limits
from glam_deploy.errors import counted


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
    failures += missed_limits(found, limits) if found else []
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

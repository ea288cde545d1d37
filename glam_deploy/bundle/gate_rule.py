"""The rule of a gate's verdict: its metrics, its limits, which limits are missed, and whether a stored verdict follows.

`agreement.verdict` computes the metrics of images. The rule is here, because an engine is admitted by a stored verdict
only if that verdict follows from the numbers beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from glam_deploy.bundle.folder import Bundle
from glam_deploy.bundle.manifest import GateEntry
from glam_deploy.errors import BundleError
from glam_deploy.json_records import JsonFault, from_json, to_json


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a verdict. Dice is between the candidate's and the reference's maps (docs/gate.md)."""

    dice_median: float = 0.99
    """Least median over images, of each map, class and threshold."""
    dice_worst: float = 0.95
    """Least of any image, map, class and threshold."""
    patch_agreement: float = 0.99
    """Least share of patches at the reference's place, or tied with it."""
    flips: int = 0
    """Most decisions that fall on the other side of the operating point."""
    lost: int = 0
    """Most pairs of image and class with a lesion that one side has and the other has not."""
    operating_point: float = 0.5
    """Score from which an image counts as positive for a class."""


@dataclass(frozen=True, kw_only=True)
class DiceSummary:
    """One map and class at one threshold, over the images that were judged there; None where none was."""

    threshold: float
    images: int
    median: float | None
    interval: tuple[float, float] | None
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
    interval: tuple[float, float] | None
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


def missed_limits(found: Metrics, limits: Limits) -> Iterator[str]:
    """The limits that the metrics do not keep, one sentence each."""
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


def require_consistent_gates(bundle: Bundle) -> None:
    """Raises BundleError for a stored verdict that contradicts itself."""
    for gate in bundle.gates:
        if reason := contradiction(gate):
            raise BundleError(
                f"{bundle.folder}: the gate {gate.id} of the engine {gate.engine} contradicts itself ({reason}). Find "
                f"out who changed the manifest, then run `glam-deploy gate` with this engine again."
            )


def contradiction(gate: GateEntry) -> str:
    """Why a stored verdict does not follow from the rest of its entry, as a phrase; "" if it does.

    A verdict written by hand can still agree with made-up numbers: only a signature excludes that.
    """
    if gate.id != (expected := gate.computed_id):
        return f"its content has the id {expected}"
    if gate.passed != (not gate.failures):
        return f"it has passed, with failures: {'; '.join(gate.failures)}" if gate.passed else "it failed for no reason"
    if not gate.passed:
        return ""
    try:
        found = from_json(Metrics, {f.name: gate.figures[f.name] for f in fields(Metrics) if f.name in gate.figures})
        limits = from_json(Limits, to_json(gate.limits))
    except JsonFault as fault:
        return f"its metrics are not those of this release: {fault}"
    # the limits are compared with numbers that can be true: an impossible one may be missing where it is compared
    return next(_inconsistencies(gate, found), "") or next(missed_limits(found, limits), "")


def _inconsistencies(gate: GateEntry, found: Metrics) -> Iterator[str]:
    """Numbers of an entry that cannot all be true."""
    if not gate.images == found.images >= 1:
        yield f"it has {gate.images} images and metrics of {found.images}, expected the same number and at least 1"
    curves = [point for labels in found.dice.values() for curve in labels.values() for point in curve]
    if wrong := next((point for point in curves if not _is_possible(point, found.images)), None):
        yield f"the Dice at {wrong.threshold} is impossible: median {wrong.median}, worst {wrong.worst}"
    if found.judged > sum(point.images for point in curves):
        yield f"Dice was judged {found.judged} times, more often than its curves say"
    lost = found.states.get("lost", 0) + found.states.get("new", 0)
    if (found.lost_or_new > 0) != (lost > 0) or min(found.lost_or_new, found.flips, *found.states.values()) < 0:
        yield f"{found.lost_or_new} lesions are lost or new, and {lost} states"
    if found.patches and not _adds_up(found.patches):
        yield f"of {found.patches.patches} patches {found.patches.agreement:.1%} agree, which does not add up"
    beside = gate.figures.get("beside_onnx")
    times = beside.get("times") if isinstance(beside, Mapping) else None
    if (gate.latency_ms, gate.times_onnx) != (gate.figures.get("latency_ms"), times):
        yield "its times differ from those of its metrics"


def _is_possible(point: DiceSummary, images: int) -> bool:
    if point.median is None or point.worst is None:
        return point.images == 0 and point.median is None and point.worst is None
    return 1 <= point.images <= images and 0 <= point.worst <= point.median <= 1


def _adds_up(patches: PatchSummary) -> bool:
    if patches.patches < 1 or min(patches.same, patches.tied) < 0:
        return False
    return patches.agreement == (patches.same + patches.tied) / patches.patches

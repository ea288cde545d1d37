"""How well maps find lesions: Dice by both definitions, global against local maps, FROC."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glam_bench.evaluation import statistics
from glam_bench.evaluation.labelled import LabelledSet
from glam_bench.evaluation.overlap import THRESHOLDS, Marks, Overlap
from glam_bench.evaluation.plain_list import CLASSES
from glam_bench.evaluation.records import ChosenOn, Definition, DiceCurve, DiceSummary, Froc, GlobalLocal
from glam_bench.evaluation.statistics import Curve
from glam_bench.evaluation.store import ImageRun

FALSE_POSITIVES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""False positives per image at which the sensitivity is reported."""

Runs = Mapping[str, ImageRun]
"""Name of an image -> what one network found in it; images that are done."""


@dataclass(frozen=True, kw_only=True)
class MapDice:
    """Dice of one map and class over the images with a mask, in the order of the set."""

    label: str
    map: str
    images: tuple[str, ...]
    exams: tuple[str, ...]
    overlaps: tuple[Overlap, ...]

    @property
    def mean_by_threshold(self) -> tuple[float, ...]:
        """Mean Dice at each of THRESHOLDS."""
        means: list[float] = np.mean([one.by_threshold for one in self.overlaps], axis=0).tolist()
        return tuple(means)

    @property
    def best(self) -> int:
        """Index of the threshold with the highest mean Dice, the lowest of equal ones."""
        return int(np.argmax(self.mean_by_threshold))


def map_dice(labelled: LabelledSet, runs: Runs) -> Iterator[MapDice]:
    """Every class and map that any image has."""
    found: dict[tuple[str, str], list[tuple[str, str, Overlap]]] = {}
    for image in labelled.images:
        for overlap in runs[image.name].overlaps if image.name in runs else ():
            found.setdefault((overlap.label, overlap.map), []).append((image.name, image.exam, overlap))
    for (label, name), rows in sorted(found.items()):
        images, exams, overlaps = zip(*rows, strict=True)
        yield MapDice(label=label, map=name, images=images, exams=exams, overlaps=overlaps)


def dice_summaries(found: MapDice, chosen: MapDice | None) -> tuple[DiceSummary, DiceSummary]:
    """Both definitions. `chosen`: the images on which the threshold is chosen; None takes the same ones."""
    best = (chosen or found).best
    soft = _summary(found, "soft", [one.soft for one in found.overlaps])
    at_threshold = _summary(found, "threshold", [one.by_threshold[best] for one in found.overlaps])
    where: ChosenOn = "validation list" if chosen else "same images: optimistic"
    return soft, replace(at_threshold, threshold=THRESHOLDS[best], chosen_on=where)


def _summary(found: MapDice, definition: Definition, values: Sequence[float]) -> DiceSummary:
    mean = statistics.estimate(statistics.mean(np.array(values)), found.exams)
    assert mean is not None  # there is an image
    return DiceSummary(
        label=found.label,
        map=found.map,
        definition=definition,
        images=len(values),
        exams=len(set(found.exams)),
        mean=mean,
        deviation=float(np.std(values, ddof=1)) if len(values) > 1 else None,
    )


def dice_curve(found: MapDice) -> DiceCurve:
    """Mean Dice against the threshold."""
    return DiceCurve(label=found.label, map=found.map, mean=found.mean_by_threshold)


def global_against_local(found: Sequence[MapDice]) -> Iterator[GlobalLocal]:
    """Soft Dice of the global and of the local map of each image, of a network that has both."""
    by_map = {(one.label, one.map): one for one in found}
    for (label, name), local in by_map.items():
        if name == "local":
            pairs = zip(local.images, by_map[label, "global"].overlaps, local.overlaps, strict=True)
            for image, whole, part in pairs:
                yield GlobalLocal(label=label, image=image, global_map=whole.soft, local_map=part.soft)


def frocs(labelled: LabelledSet, runs: Runs) -> Iterator[Froc]:
    """FROC of every class with a lesion.

    Images count that have an outline of the class, or that are labelled as without it. Others are left out: where a
    lesion is known and its place is not, a mark can be neither right nor wrong.
    """
    for label in CLASSES:
        found = []
        for image in labelled.images:
            if image.name in runs:
                marks = next(one for one in runs[image.name].marks if one.label == label)
                if marks.lesions or image.labels.get(label) is False:
                    found.append(marks)
        if any(marks.lesions for marks in found):
            yield froc(label, found)


def froc(label: str, found: Sequence[Marks]) -> Froc:
    """FROC over images, of which one has a lesion. A lesion counts once, with its highest mark."""
    lesions = sum(marks.lesions for marks in found)
    wrong = [score for marks in found for score, hit in zip(marks.scores, marks.hits, strict=True) if hit is None]
    right = [score for marks in found for score in _best(marks).values()]
    levels = np.unique([*wrong, *right])[::-1]
    across, up = (
        (len(scores) - np.searchsorted(np.sort(scores), levels, side="left")) / count
        for scores, count in ((wrong, len(found)), (right, lesions))
    )
    points = Curve(across=(0.0, *across.tolist()), up=(0.0, *up.tolist()))
    at = [
        (most, max(y for x, y in zip(points.across, points.up, strict=True) if x <= most)) for most in FALSE_POSITIVES
    ]
    return Froc(label=label, images=len(found), lesions=lesions, curve=points, at=tuple(at))


def _best(marks: Marks) -> dict[int, float]:
    """Number of each lesion that is hit -> its highest mark; marks are in descending order."""
    best: dict[int, float] = {}
    for score, hit in zip(marks.scores, marks.hits, strict=True):
        if hit is not None:
            best.setdefault(hit, score)
    return best

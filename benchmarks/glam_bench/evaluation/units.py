"""Images, breasts and exams with their labels and scores: the units over which areas are computed.

A breast or exam is positive for a class if one of its images is, unknown (and left out) if none is positive and one is
unknown, else negative. Its score is the mean or the maximum over its images that were evaluated; both are reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from glam_bench.evaluation.labelled import LabelledImage, LabelledSet
from glam_bench.evaluation.records import Level, Unit
from glam_bench.evaluation.statistics import Labels
from glam_deploy.exams import pool

Scores = Mapping[str, Mapping[str, float]]
"""Score -> class -> value."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of one network."""

    name: str
    final: str
    """Name of the score that counts as the network's prediction."""
    images: Mapping[str, Scores]
    """Name of each image that was evaluated -> scores."""
    sides: Mapping[str, str | None] = field(default_factory=dict)
    """Name of an image -> "L" or "R", where the set does not state it."""


@dataclass(frozen=True, kw_only=True)
class Units:
    """Units with a known label and a score, in the order of the set."""

    keys: tuple[str, ...]
    exams: tuple[str, ...]
    positive: Labels
    scores: NDArray[np.float64]


def units(labelled: LabelledSet, scored: Scored, score: str, label: str, unit: Unit) -> Units:
    """The units of one score and class at one level. `unit`: level and rule."""
    level, rule = unit
    groups: dict[str, list[LabelledImage]] = {}
    for image in labelled.images:
        if key := unit_key(image, scored, level):
            groups.setdefault(key, []).append(image)
    rows = []
    for key, images in groups.items():
        known = label_of(images, label)
        values = [scored.images[one.name][score][label] for one in images if one.name in scored.images]
        if known is not None and values:
            pooled = pool(values)
            rows.append((key, images[0].exam, known, pooled.maximum if rule == "maximum" else pooled.mean))
    keys, exams, positive, scores = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Units(keys=keys, exams=exams, positive=np.array(positive, bool), scores=np.array(scores, np.float64))


def unit_key(image: LabelledImage, scored: Scored, level: Level) -> str | None:
    """The unit that an image belongs to; None for a breast whose side is unknown."""
    if level == "image":
        return image.name
    if level == "exam":
        return image.exam
    side = scored.sides.get(image.name)
    return image.breast or (f"{image.exam}/{side}" if side else None)


def label_of(images: list[LabelledImage], label: str) -> bool | None:
    """Label of a breast or exam from those of its images."""
    known = [image.labels.get(label) for image in images]
    return True if True in known else None if None in known else False


def shared(first: Units, second: Units) -> tuple[Units, Units]:
    """The units that both have, in the same order."""
    common = set(first.keys) & set(second.keys)
    return _only(first, common), _only(second, common)


def _only(found: Units, keys: set[str]) -> Units:
    kept = [n for n, key in enumerate(found.keys) if key in keys]
    return Units(
        keys=tuple(found.keys[n] for n in kept),
        exams=tuple(found.exams[n] for n in kept),
        positive=found.positive[kept],
        scores=found.scores[kept],
    )

"""Records of an evaluation, as evaluation.json has them. docs/evaluate.md explains every number."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from glam_bench.evaluation.statistics import Calibration, Curve, DeLong, Estimate

SCHEMA = 1

Level = Literal["image", "breast", "exam"]
Rule = Literal["image", "mean", "maximum"]
"""How the score of a unit is made of those of its images; "image" for single images."""
Unit = tuple[Level, Rule]
UNITS: tuple[Unit, ...] = (
    ("image", "image"),
    ("breast", "mean"),
    ("breast", "maximum"),
    ("exam", "mean"),
    ("exam", "maximum"),
)
"""Levels and rules at which areas are reported."""

SOFT = "soft Dice 2 sum(S M) / (sum(S) + sum(M)), no threshold"
AT_THRESHOLD = "Dice at a threshold, of S >= threshold"
Definition = Literal["soft", "threshold"]
ChosenOn = Literal["validation list", "same images: optimistic"]
"""Images on which a threshold was chosen."""
DEFINITIONS: Mapping[Definition, str] = {"soft": SOFT, "threshold": AT_THRESHOLD}


@dataclass(frozen=True, kw_only=True)
class Areas:
    """Areas under the curves of one score of one class."""

    label: str
    score: str
    level: Level
    rule: Rule
    units: int
    """Images, breasts or exams with a known label."""
    positive: int
    exams: int
    auroc: Estimate | None
    """None where all units have the same label."""
    auprc: Estimate | None
    """Average precision; None where all units have the same label: 1 by definition, or undefined."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Curves of the final score over single images."""

    label: str
    roc: Curve
    precision_recall: Curve


@dataclass(frozen=True, kw_only=True)
class DiceSummary:
    """Dice of one map of one class, over the images with a mask of this class that is not empty."""

    label: str
    map: str
    definition: Definition
    threshold: float | None = None
    chosen_on: ChosenOn | None = None
    images: int
    exams: int
    mean: Estimate
    deviation: float | None
    """Sample standard deviation over the images; None for one image."""


@dataclass(frozen=True, kw_only=True)
class DiceCurve:
    """Mean Dice at each of `overlap.THRESHOLDS`."""

    label: str
    map: str
    mean: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class GlobalLocal:
    """Soft Dice of the global map and of the maps of patches in one image."""

    label: str
    image: str
    global_map: float
    local_map: float


@dataclass(frozen=True, kw_only=True)
class Froc:
    """Sensitivity for lesions against false positives per image, of the final map."""

    label: str
    images: int
    """Images with outlines of the class, or labelled as without it."""
    lesions: int
    curve: Curve
    """False positives per image, and share of the lesions that are hit, as the threshold falls."""
    at: tuple[tuple[float, float], ...]
    """(false positives per image, highest sensitivity with at most so many)."""


@dataclass(frozen=True, kw_only=True)
class CalibrationOf:
    """Calibration of the final score over single images. Scores are not calibrated probabilities."""

    label: str
    table: Calibration


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What was evaluated under a name."""

    name: str
    title: str
    """Of the network, or "predictions" for a file of predictions."""
    final_score: str
    """Score that counts as the network's prediction: y_fusion where it exists, else y_global."""
    final_map: str | None
    """Map that counts as the network's saliency; None for a file of predictions."""
    engine: str | None = None
    bundle: str | None = None
    """Identifier of the bundle."""
    patches: int | None = None
    images: int
    """Images that were evaluated."""
    time_ms: float | None = None
    """Median time of an image, from the standardized image to scores and maps."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An image that a network could not be evaluated on."""

    image: str
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ModelResults:
    """All results of one network."""

    facts: ModelFacts
    left_out: tuple[LeftOut, ...]
    areas: tuple[Areas, ...]
    curves: tuple[Curves, ...]
    calibration: tuple[CalibrationOf, ...]
    dice: tuple[DiceSummary, ...]
    dice_curves: tuple[DiceCurve, ...]
    global_local: tuple[GlobalLocal, ...]
    froc: tuple[Froc, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """AUROC of the first network minus that of the second, final scores, on the units that both have."""

    first: str
    second: str
    label: str
    level: Level
    rule: Rule
    units: int
    positive: int
    exams: int
    bootstrap: Estimate
    """The difference with its paired bootstrap interval over exams."""
    delong: DeLong | None
    """DeLong's test, which assumes independent units: exact for exams, too optimistic for images of one exam."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All results of an evaluation."""

    schema: int = SCHEMA
    when: str
    """ISO 8601."""
    release: str
    """Of glam-deploy."""
    name: str
    """Of the labelled set."""
    label_level: str
    """What the labels are of: "image" or "breast"."""
    images: int
    exams: int
    positive: Mapping[str, int]
    """Class -> images with it."""
    outlined: Mapping[str, int]
    """Class -> images with an outline of it."""
    validation: str | None
    """Name of the list on which thresholds were chosen."""
    remarks: tuple[str, ...]
    models: tuple[ModelResults, ...]
    comparisons: tuple[Comparison, ...]

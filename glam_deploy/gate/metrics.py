"""Metrics that a gate reports in addition to its verdict: scores, AUROC, Dice against ground truth, times."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from glam_deploy.agreement.limits import THRESHOLDS
from glam_deploy.agreement.summary import Interval, auroc, auroc_interval, interval, rank_agreement
from glam_deploy.gate.trial import ImageTrial

LEAST_TIMED = 3
"""Minimum number of images for a ratio of times."""


@dataclass(frozen=True, kw_only=True)
class Areas:
    """Areas under the ROC curve (AUROC) of one score, over the images with a mask."""

    candidate: float
    reference: float
    difference: float
    interval: Interval
    """95 % confidence interval of the difference."""


@dataclass(frozen=True, kw_only=True)
class ScoreMetrics:
    """Metrics of one score of one class."""

    largest_difference: float
    rank_agreement: float | None
    auroc: Areas | None
    """None for fewer than ten images with a mask, or if all have the same label."""


@dataclass(frozen=True, kw_only=True)
class GroundTruthMetrics:
    """Mean Dice against the masks of one class, at the threshold with the highest mean Dice of the reference."""

    threshold: float
    images: int
    candidate: float
    reference: float
    difference: float
    interval: Interval | None
    """95 % confidence interval of the difference; None for fewer than ten images."""


@dataclass(frozen=True, kw_only=True)
class TimedBesideOnnx:
    """Times of the candidate and of the engine "onnx", measured alternately on the same images."""

    images: int
    latency_ms: float
    onnx_ms: float
    times: float
    """Median over the images of the candidate's time divided by that of "onnx"."""


@dataclass(frozen=True, kw_only=True)
class TrialMetrics:
    """Metrics over all images of a gate, at least one."""

    scores: Mapping[str, Mapping[str, ScoreMetrics]]
    """Score -> class -> metrics."""
    flat: Mapping[str, int]
    """"candidate" and "reference" -> number of images with a global map without contrast."""
    ground_truth: Mapping[str, GroundTruthMetrics]
    """Class -> metrics, for the classes that occur in masks."""
    latency_ms: float
    """Median latency of the candidate."""
    beside_onnx: TimedBesideOnnx | None

    def to_json(self) -> dict[str, Any]:
        """JSON values for a gate's "figures", which also have the metrics of the verdict."""
        found = asdict(self)
        ground_truth = found.pop("ground_truth")
        return {**found, "truth": ground_truth}


def trial_metrics(trials: Sequence[ImageTrial]) -> TrialMetrics:
    """Compute the metrics over all images; `trials` must not be empty."""
    first = trials[0].agreement
    labels = list(dict.fromkeys(one.label for one in first.maps))
    return TrialMetrics(
        scores={
            name: {label: _score(trials, name, label, index) for index, label in enumerate(labels)}
            for name in first.scores
        },
        flat={side: sum(trial.flat[n] for trial in trials) for n, side in enumerate(("candidate", "reference"))},
        ground_truth={label: found for label in labels if (found := _ground_truth(trials, label))},
        latency_ms=median(trial.latency_ms for trial in trials),
        beside_onnx=_beside_onnx(trials),
    )


def _score(trials: Sequence[ImageTrial], name: str, label: str, index: int) -> ScoreMetrics:
    candidate, reference = zip(*[trial.agreement.scores[name][index] for trial in trials], strict=True)
    return ScoreMetrics(
        largest_difference=max(abs(a - b) for a, b in zip(candidate, reference, strict=True)),
        rank_agreement=rank_agreement(candidate, reference),
        auroc=_areas(trials, name, label, index),
    )


def _areas(trials: Sequence[ImageTrial], name: str, label: str, index: int) -> Areas | None:
    known = [
        (*trial.agreement.scores[name][index], has)
        for trial in trials
        if trial.positive is not None and (has := trial.positive[label]) is not None
    ]
    if not known:
        return None
    candidate, reference, positive = zip(*known, strict=True)
    of_candidate, of_reference = auroc(candidate, positive), auroc(reference, positive)
    between = auroc_interval(candidate, reference, positive)
    if of_candidate is None or of_reference is None or between is None:
        return None
    return Areas(
        candidate=of_candidate, reference=of_reference, difference=of_candidate - of_reference, interval=between
    )


def _ground_truth(trials: Sequence[ImageTrial], label: str) -> GroundTruthMetrics | None:
    curves = np.array([trial.ground_truth[label] for trial in trials if label in trial.ground_truth])
    if not len(curves):
        return None
    best = int(curves[:, :, 1].mean(axis=0).argmax())
    candidate, reference = curves[:, best, 0], curves[:, best, 1]
    return GroundTruthMetrics(
        threshold=THRESHOLDS[best],
        images=len(curves),
        candidate=float(candidate.mean()),
        reference=float(reference.mean()),
        difference=float((candidate - reference).mean()),
        interval=interval((candidate - reference).tolist(), np.mean),
    )


def _beside_onnx(trials: Sequence[ImageTrial]) -> TimedBesideOnnx | None:
    """Times without the first image, which warms up both engines; None for fewer than LEAST_TIMED other images."""
    timed = [(trial.latency_ms, trial.onnx_ms) for trial in trials if trial.onnx_ms][1:]
    if len(timed) < LEAST_TIMED:
        return None
    candidate, onnx = zip(*timed, strict=True)
    return TimedBesideOnnx(
        images=len(timed),
        latency_ms=median(candidate),
        onnx_ms=median(onnx),
        times=median(a / b for a, b in timed),
    )

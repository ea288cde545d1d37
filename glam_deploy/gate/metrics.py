"""What a gate reports beside its verdict: scores, areas under ROC curves, Dice against ground truth, times."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from glam_deploy.agreement.limits import THRESHOLDS
from glam_deploy.agreement.summary import Interval, auroc, auroc_interval, interval, rank_agreement
from glam_deploy.gate.trial import ImageTrial

LEAST_TIMED = 3
"""Least number of images for a ratio of times."""


@dataclass(frozen=True, kw_only=True)
class Areas:
    """Areas under the ROC curves of one score, over the images that have a mask."""

    candidate: float
    reference: float
    difference: float
    interval: Interval
    """95 % interval of the difference."""


@dataclass(frozen=True, kw_only=True)
class ScoreMetrics:
    """One score of one class."""

    largest_difference: float
    rank_agreement: float | None
    auroc: Areas | None
    """None for fewer than ten images with a mask, or where all have one label."""


@dataclass(frozen=True, kw_only=True)
class GroundTruthMetrics:
    """Mean Dice against the masks of one class, both sides at the threshold where the reference is best on average."""

    threshold: float
    images: int
    candidate: float
    reference: float
    difference: float
    interval: Interval | None
    """95 % interval of the difference; None for fewer than ten images."""


@dataclass(frozen=True, kw_only=True)
class TimedBesideOnnx:
    """The candidate's time and that of the engine "onnx" on the same images, in turns."""

    images: int
    latency_ms: float
    onnx_ms: float
    times: float
    """Median of the ratios: candidate over onnx."""


@dataclass(frozen=True, kw_only=True)
class TrialMetrics:
    """Of at least one image."""

    scores: Mapping[str, Mapping[str, ScoreMetrics]]
    """Score -> class."""
    flat: Mapping[str, int]
    """"candidate" and "reference" -> images with a global map without contrast."""
    ground_truth: Mapping[str, GroundTruthMetrics]
    """Class that a mask has."""
    latency_ms: float
    beside_onnx: TimedBesideOnnx | None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, as a gate's "figures" hold it beside those of the verdict."""
        found = asdict(self)
        ground_truth = found.pop("ground_truth")
        return {**found, "truth": ground_truth}


def trial_metrics(trials: Sequence[ImageTrial]) -> TrialMetrics:
    """Of at least one image."""
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
    known = [(*t.agreement.scores[name][index], t.positive[label]) for t in trials if t.positive is not None]
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
    """Without the first image, which warms up both engines; None where there are fewer than LEAST_TIMED others."""
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

"""Statistics of an evaluation: areas under curves with intervals over exams, DeLong's test, calibration.

Scores are float64 [n], labels bool [n], `exams` the identifier of the exam of each of the n units (images, breasts or
exams).

Intervals are percentile bootstrap intervals (Efron 1979) in which whole exams are drawn, a cluster bootstrap: images of
one exam are of one woman and not independent, so drawing single images would make the intervals too narrow (Davison and
Hinkley 1997, section 3.8). The draws are the same for the same exams, so that two networks are compared on the same
resamples. A resample in which a statistic is undefined, because it has one label only, is left out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np
from numpy.typing import NDArray

from glam_deploy.agreement.summary import (
    ENOUGH,
    RESAMPLES,
    SEED,
    Float64,
    percentiles,
    ranks,
    weight_by_score,
    weighted_auroc,
)

Labels = NDArray[np.bool_]
Statistic = Callable[[Float64], Float64]
"""Weights [B, n] of the units -> value for each row [B], NaN where it is undefined."""

BINS = 10
"""Bins of a calibration table, of equal width."""
NORMAL_95 = 1.959963984540054
"""97.5th percentile of the standard normal distribution."""
_BLOCK, _WEIGHTS = 200, 4_000_000
"""Most resamples that are evaluated at once, and most weights of units in them, which bounds the memory."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A statistic with its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None
    """None for fewer than ten exams."""


def estimate(statistic: Statistic, exams: Sequence[str]) -> Estimate | None:
    """A statistic of all units and its bootstrap interval over exams; None where it is undefined."""
    value = float(statistic(np.ones((1, len(exams))))[0]) if exams else np.nan
    if np.isnan(value):
        return None
    if len(set(exams)) < ENOUGH:
        return Estimate(value=value)
    samples = np.concatenate([statistic(weights) for weights in exam_draws(exams)])
    low, high = percentiles(samples[~np.isnan(samples)])
    return Estimate(value=value, low=low, high=high)


def exam_draws(exams: Sequence[str]) -> Iterator[Float64]:
    """How often each unit is in each of RESAMPLES resamples of whole exams: blocks of float64 [at most _BLOCK, n]."""
    numbers = {exam: number for number, exam in enumerate(dict.fromkeys(exams))}
    exam_of = np.array([numbers[exam] for exam in exams])
    generator, count = np.random.default_rng(SEED), len(numbers)
    block = min(_BLOCK, max(1, _WEIGHTS // len(exams)))
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        drawn = generator.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield times[:, exam_of].astype(np.float64)


def auroc(scores: Float64, positive: Labels) -> Statistic:
    """Area under the ROC curve, as `summary.weighted_auroc`."""
    return lambda weights: weighted_auroc(scores, positive, weights)


def average_precision(scores: Float64, positive: Labels) -> Statistic:
    """Area under the precision-recall curve as average precision: sum over thresholds of (R_n - R_{n-1}) P_n.

    R and P are recall and precision at the n-th highest different score, without interpolation; the definition of
    scikit-learn's `average_precision_score`. Undefined without a positive unit.
    """

    def of(weights: Float64) -> Float64:
        negatives, positives = (side[:, ::-1] for side in weight_by_score(scores, positive, weights))
        found, taken = positives.cumsum(axis=1), (positives + negatives).cumsum(axis=1)
        precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
        total, areas = found[:, -1], np.full(len(weights), np.nan)
        np.divide((positives * precision).sum(axis=1), total, out=areas, where=total > 0)
        return areas

    return of


def mean(values: Float64) -> Statistic:
    """Weighted mean over the units."""

    def of(weights: Float64) -> Float64:
        total, found = weights.sum(axis=1), np.full(len(weights), np.nan)
        np.divide(weights @ values, total, out=found, where=total > 0)
        return found

    return of


def difference(first: Statistic, second: Statistic) -> Statistic:
    """The first minus the second, on the same resamples."""
    return lambda weights: first(weights) - second(weights)


@dataclass(frozen=True, kw_only=True)
class DeLong:
    """DeLong's comparison of two correlated areas under ROC curves; it assumes independent units."""

    difference: float
    low: float
    high: float
    """95 % interval of the difference, by the normal distribution."""
    p: float
    """Two-sided."""


def delong(first: Float64, second: Float64, positive: Labels) -> DeLong | None:
    """DeLong's test of the area of `first` minus that of `second`, on the same units.

    None for fewer than two units of a label, and where the difference has no variance, unless it is 0 (then p is 1).
    Sources: DeLong, DeLong and Clarke-Pearson 1988; by midranks as in Sun and Xu 2014.
    """
    count = (~positive).sum(), positive.sum()
    if min(count) < 2:
        return None
    parts = [_placements(scores, positive) for scores in (first, second)]
    of_positives, of_negatives = (parts[0][side] - parts[1][side] for side in (0, 1))
    gap = float(of_positives.mean())
    error = sqrt(of_positives.var(ddof=1) / count[1] + of_negatives.var(ddof=1) / count[0])
    if error == 0:
        return DeLong(difference=gap, low=gap, high=gap, p=1.0) if gap == 0 else None
    p = erfc(abs(gap) / error / sqrt(2))
    return DeLong(difference=gap, low=gap - NORMAL_95 * error, high=gap + NORMAL_95 * error, p=p)


def _placements(scores: Float64, positive: Labels) -> tuple[Float64, Float64]:
    """For each positive unit the share of negative ones below it, for each negative one that of positive ones above."""
    every = ranks(scores)
    negatives, positives = int((~positive).sum()), int(positive.sum())
    above = (every[positive] - ranks(scores[positive])) / negatives
    below = 1 - (every[~positive] - ranks(scores[~positive])) / positives
    return above, below


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points of a ROC or precision-recall curve, from the highest threshold to the lowest."""

    across: tuple[float, ...]
    """1 - specificity, or recall."""
    up: tuple[float, ...]
    """Sensitivity, or precision."""


def roc_curve(scores: Float64, positive: Labels) -> Curve:
    """Sensitivity against 1 - specificity at each different score, from (0, 0) to (1, 1). Needs both labels."""
    negatives, positives = weight_by_score(scores, positive, np.ones((1, len(scores))))
    across, up = (np.concatenate([[0.0], side[0, ::-1].cumsum() / side.sum()]) for side in (negatives, positives))
    return Curve(across=tuple(across.tolist()), up=tuple(up.tolist()))


def precision_recall_curve(scores: Float64, positive: Labels) -> Curve:
    """Precision against recall at each different score, from the highest. Needs a positive unit."""
    negatives, positives = weight_by_score(scores, positive, np.ones((1, len(scores))))
    found = positives[0, ::-1].cumsum()
    precision = found / (found + negatives[0, ::-1].cumsum())
    return Curve(across=tuple((found / found[-1]).tolist()), up=tuple(precision.tolist()))


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Images whose score lies in low <= score < high; the last bin includes 1."""

    low: float
    high: float
    images: int
    predicted: float
    """Mean score; 0 without images."""
    observed: float
    """Share of positive images; 0 without images."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far scores are from probabilities. They are no calibrated probabilities; this says by how much."""

    bins: tuple[Bin, ...]
    expected_error: float
    """Expected calibration error: mean over the bins of |predicted - observed|, weighted by their images (Guo et al.
    2017)."""
    brier: float
    """Brier score: mean of (score - label)^2 (Brier 1950)."""


def calibration(scores: Float64, positive: Labels) -> Calibration:
    """Calibration table over BINS bins of equal width. Needs an image."""
    where = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins = tuple(_bin(number, scores[where == number], positive[where == number]) for number in range(BINS))
    gaps = [one.images * abs(one.predicted - one.observed) for one in bins if one.images]
    return Calibration(
        bins=bins,
        expected_error=sum(gaps) / len(scores),
        brier=float(((scores - positive) ** 2).mean()),
    )


def _bin(number: int, scores: Float64, positive: Labels) -> Bin:
    return Bin(
        low=number / BINS,
        high=(number + 1) / BINS,
        images=len(scores),
        predicted=float(scores.mean()) if len(scores) else 0.0,
        observed=float(positive.mean()) if len(scores) else 0.0,
    )

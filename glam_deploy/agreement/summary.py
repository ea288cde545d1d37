"""Statistics over the images of a trial: bootstrap intervals, rank agreement, areas under ROC curves."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0
"""The same images give the same intervals."""
ENOUGH = 10
"""Least number of images for an interval: resamples of fewer hold too few different sets."""
ENOUGH_TO_RANK = 3

Float64 = NDArray[np.float64]
Interval = tuple[float, float]


def interval(values: Sequence[float], statistic: Callable[..., Any]) -> Interval | None:
    """95 % percentile bootstrap interval (Efron 1979) of a statistic over images; None for fewer than ten.

    `statistic`: of an array along `axis=-1`, such as `numpy.median`.
    """
    if len(values) < ENOUGH:
        return None
    samples = np.asarray(values, np.float64)[_draws(len(values))]
    return _percentiles(statistic(samples, axis=-1))


def ranks(values: ArrayLike) -> Float64:
    """Rank of each value from 1, equal values sharing the mean of their ranks."""
    found = np.asarray(values, np.float64)
    _, where, counts = np.unique(found, return_inverse=True, return_counts=True)
    shared = counts.cumsum() - (counts - 1) / 2
    return np.asarray(shared[where], np.float64)


def rank_agreement(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's correlation, -1..1; None for fewer than three images, or where all scores of a side are equal."""
    a, b = ranks(first), ranks(second)
    if len(a) < ENOUGH_TO_RANK or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """Area under the ROC curve, 0..1, as the Mann-Whitney statistic; equal scores count half. None without both labels.

    Source: Hanley and McNeil 1982.
    """
    labels = np.asarray(positive, bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    wins = ranks(scores)[labels].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def auroc_interval(candidate: Sequence[float], reference: Sequence[float], positive: Sequence[bool]) -> Interval | None:
    """95 % interval of the candidate's area minus the reference's, both on the same resampled images (paired).

    None for fewer than ten images. Resamples that hold only one label have no area and are left out.
    """
    if len(positive) < ENOUGH:
        return None
    a, b, labels = np.asarray(candidate), np.asarray(reference), np.asarray(positive, bool)
    pairs = ((auroc(a[i], labels[i]), auroc(b[i], labels[i])) for i in _draws(len(labels)))
    differences = [x - y for x, y in pairs if x is not None and y is not None]
    return _percentiles(np.array(differences)) if differences else None


def _draws(count: int) -> NDArray[np.intp]:
    """Indexes with replacement: [RESAMPLES, count]."""
    return np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))


def _percentiles(samples: Float64) -> Interval:
    low, high = np.percentile(samples, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)

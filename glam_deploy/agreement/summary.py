"""Statistics over images: bootstrap intervals, rank agreement, areas under ROC curves."""

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
    return percentiles(statistic(samples, axis=-1))


def ranks(values: ArrayLike) -> Float64:
    """Rank of each value from 1, equal values sharing the mean of their ranks."""
    _, where, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    shared: Float64 = counts.cumsum() - (counts - 1) / 2
    return shared[where]


def rank_agreement(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's correlation, -1..1; None for fewer than three images, or where all scores of a side are equal."""
    a, b = ranks(first), ranks(second)
    if len(a) < ENOUGH_TO_RANK or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """Area under the ROC curve, 0..1; None without both labels. Definition and source: `weighted_auroc`."""
    area = weighted_auroc(np.asarray(scores), np.asarray(positive, bool), np.ones((1, len(scores))))[0]
    return None if np.isnan(area) else float(area)


def weighted_auroc(scores: Float64, positive: NDArray[np.bool_], weights: Float64) -> Float64:
    """Area under the ROC curve as the Mann-Whitney statistic, for several weightings of the same images at once.

    `scores`, `positive`: [n]. `weights`: [B, n], >= 0, such as how often a resample has each image. Returns [B]: the
    weighted share of pairs of a positive and a negative image in which the positive one has the higher score, equal
    scores counting half; NaN where a label has no weight. Source: Hanley and McNeil 1982.
    """
    negatives, positives = weight_by_score(scores, positive, weights)
    below = negatives.cumsum(axis=1) - negatives / 2
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    areas = np.full(len(weights), np.nan)
    np.divide((positives * below).sum(axis=1), pairs, out=areas, where=pairs > 0)
    return areas


def weight_by_score(scores: Float64, positive: NDArray[np.bool_], weights: Float64) -> tuple[Float64, Float64]:
    """Weight of the negative and of the positive images at each different score, ascending: two arrays [B, scores].

    Arguments as in `weighted_auroc`.
    """
    order = np.argsort(scores)
    first = np.flatnonzero(np.diff(scores[order], prepend=np.nan))
    sorted_weights, labels = weights[:, order], positive[order]
    negatives, positives = (np.add.reduceat(sorted_weights * side, first, axis=1) for side in (~labels, labels))
    return negatives, positives


def auroc_interval(candidate: Sequence[float], reference: Sequence[float], positive: Sequence[bool]) -> Interval | None:
    """95 % interval of the candidate's area minus the reference's, both on the same resampled images (paired).

    None for fewer than ten images. Resamples that hold only one label have no area and are left out.
    """
    if len(positive) < ENOUGH:
        return None
    a, b, labels = np.asarray(candidate), np.asarray(reference), np.asarray(positive)
    pairs = ((auroc(a[i], labels[i]), auroc(b[i], labels[i])) for i in _draws(len(labels)))
    differences = [x - y for x, y in pairs if x is not None and y is not None]
    return percentiles(np.array(differences)) if differences else None


def _draws(count: int) -> NDArray[np.intp]:
    """Indexes with replacement: [RESAMPLES, count]."""
    return np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))


def percentiles(samples: Float64) -> Interval:
    """The middle LEVEL of bootstrap samples [n], n >= 1: the percentile interval."""
    low, high = np.percentile(samples, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)

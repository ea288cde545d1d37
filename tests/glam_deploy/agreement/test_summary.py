"""The gate's statistics against SciPy, counts by hand, and known distributions."""

from itertools import product

import numpy as np
import pytest

from glam_deploy.agreement.summary import (
    auroc,
    auroc_interval,
    interval,
    percentiles,
    rank_agreement,
    ranks,
    weight_by_score,
    weighted_auroc,
)

scipy_stats = pytest.importorskip("scipy.stats")


def random(seed: int, count: int, *, levels: int | None = None) -> np.ndarray:
    values = np.random.default_rng(seed).random(count)
    return values if levels is None else np.round(values * levels) / levels


@pytest.mark.parametrize("levels", [None, 4], ids=["distinct", "tied"])
def test_ranks_and_their_agreement(levels: int | None) -> None:
    a, b = random(1, 40, levels=levels), random(2, 40, levels=levels)
    b = np.round((a + b) * 4) / 8 if levels else a + b
    np.testing.assert_array_equal(ranks(a), scipy_stats.rankdata(a))
    assert rank_agreement(a.tolist(), b.tolist()) == pytest.approx(scipy_stats.spearmanr(a, b).statistic)


def test_agreement_needs_three_images_and_different_scores() -> None:
    assert rank_agreement([0.1, 0.2], [0.1, 0.2]) is None
    assert rank_agreement([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]) is None
    assert rank_agreement([0.1, 0.2, 0.3], [0.9, 0.5, 0.1]) == pytest.approx(-1)


@pytest.mark.parametrize("levels", [None, 5], ids=["distinct", "tied"])
def test_area_is_the_share_of_pairs_in_order(levels: int | None) -> None:
    scores, positive = random(3, 30, levels=levels), random(4, 30) > 0.6
    pairs = list(product(scores[positive], scores[~positive]))
    share = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)
    assert auroc(scores.tolist(), positive.tolist()) == pytest.approx(share)


def test_no_area_without_both_labels() -> None:
    assert auroc([0.1, 0.9], [True, True]) is None
    assert auroc([0.1, 0.9], [False, False]) is None
    assert (auroc([0.1, 0.9], [False, True]), auroc([0.1, 0.9], [True, False])) == (1, 0)
    assert weighted_auroc(np.array([1.0, 2]), np.array([False, True]), np.array([[0.5, 0.5]])).tolist() == [1]
    assert auroc_interval([0.1] * 9, [0.2] * 9, [True] * 4 + [False] * 5) is None


def test_interval_of_the_mean_is_that_of_theory() -> None:
    """The mean of n draws of deviation s lies within 1.96 s / sqrt(n), for n this large to a few percent."""
    values = random(5, 400)
    low, high = interval(values.tolist(), np.mean) or (0, 0)
    margin = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - margin, values.mean() + margin), abs=0.1 * margin)


def test_interval_of_the_median_is_scipys() -> None:
    values = random(6, 50)
    found = scipy_stats.bootstrap((values,), np.median, method="percentile", n_resamples=20000, rng=7)
    expected = found.confidence_interval
    assert interval(values.tolist(), np.median) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_an_interval_resamples_all_images_in_double_precision() -> None:
    """2000 resamples of as many images as there are; the statistic gets them along the last axis."""
    values = [np.float32(value) for value in range(10)]
    given: list[np.ndarray] = []

    def mean(samples: np.ndarray, axis: int) -> np.ndarray:
        given.append(samples)
        assert axis == -1
        return samples.mean(axis=axis)

    found = interval(values, mean)
    assert found == percentiles(given[0].mean(axis=1))
    assert (given[0].shape, given[0].dtype) == ((2000, 10), np.float64)
    assert np.unique(given[0]).tolist() == values
    assert interval(values, mean) == found
    np.testing.assert_array_equal(given[0], given[1], err_msg="the same images are drawn again")


def test_intervals_repeat_and_need_ten_images() -> None:
    values = random(8, 10).tolist()
    assert interval(values, np.median) == interval(values, np.median)
    assert interval(values[:9], np.median) is None


def test_paired_areas_move_together() -> None:
    """Two scores of one order have areas that differ by nothing in any resample; a better one differs upwards."""
    positive = [True, False] * 20
    noise = random(9, 40)
    weak = (noise + 0.2 * np.array(positive)).tolist()
    assert auroc_interval([2 * s for s in weak], weak, positive) == (0, 0)
    low, high = auroc_interval([float(p) for p in positive], weak, positive) or (0, 0)
    difference = 1 - (auroc(weak, positive) or 0)
    assert 0 < low < difference < high < 1


def test_weights_are_repetitions() -> None:
    scores, positive = random(10, 12, levels=4), random(11, 12) > 0.4
    weights = np.random.default_rng(12).integers(0, 4, (5, 12))
    weights[1] = positive  # no weight on any negative image
    expected = [auroc(np.repeat(scores, w).tolist(), np.repeat(positive, w).tolist()) for w in weights]
    found = weighted_auroc(scores, positive, weights.astype(np.float64))
    assert expected[1] is None and np.isnan(found[1])
    assert [area for n, area in enumerate(found) if n != 1] == pytest.approx([e for e in expected if e is not None])


def test_weights_at_each_score() -> None:
    scores, positive = np.array([0.5, 0.1, 0.5, 0.9]), np.array([True, False, False, True])
    negatives, positives = weight_by_score(scores, positive, np.array([[1.0, 2, 3, 4], [0, 1, 0, 1]]))
    assert negatives.tolist() == [[2, 3, 0], [1, 0, 0]]
    assert positives.tolist() == [[0, 1, 4], [0, 0, 1]]
    assert auroc([], []) is None


def test_the_middle_95_percent() -> None:
    assert percentiles(np.arange(2001.0)[::-1]) == pytest.approx((50, 1950))


def test_intervals_of_areas_begin_at_ten_images_of_both_labels() -> None:
    scores = np.linspace(0, 1, 10).tolist()
    assert auroc_interval(scores, scores, [False] * 5 + [True] * 5) == (0, 0)
    assert auroc_interval(scores, scores, [True] * 10) is None


def test_three_images_can_be_ranked_where_their_scores_differ_on_both_sides() -> None:
    assert rank_agreement([0.1, 0.2, 0.3], [0.5, 0.5, 0.5]) is None
    assert rank_agreement([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]) == pytest.approx(1)

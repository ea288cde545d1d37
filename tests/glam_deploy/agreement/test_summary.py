"""The gate's statistics against SciPy, counts by hand, and known distributions."""

from itertools import product

import numpy as np
import pytest

from glam_deploy.agreement.summary import auroc, auroc_interval, interval, rank_agreement, ranks

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

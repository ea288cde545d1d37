"""Areas, intervals, DeLong's test and calibration against scikit-learn, counts by hand, and loops by definition."""

from math import erfc, sqrt
from statistics import variance

import numpy as np
import pytest

from glam_bench.evaluation import statistics

metrics = pytest.importorskip("sklearn.metrics")

SCORES = np.array([0.9, 0.6, 0.6, 0.2])
POSITIVE = np.array([True, True, False, False])
EXAMS = [f"exam {n // 3}" for n in range(120)]


def sample(seed: int, *, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """120 scores that know a little of their labels; `levels` rounds them so that there are ties."""
    random = np.random.default_rng(seed)
    positive = random.random(120) < 0.4
    scores = np.clip(random.normal(0.4 + 0.2 * positive, 0.2), 0, 1)
    return scores if levels is None else np.round(scores * levels) / levels, positive


def value(statistic: statistics.Statistic, count: int) -> float:
    return float(statistic(np.ones((1, count)))[0])


def test_four_images_by_hand() -> None:
    """Pairs: 0.9 above both, 0.6 ties with 0.6 and is above 0.2: 3.5 of 4. Thresholds 0.9: recall 1/2, precision 1;
    0.6: recall 1, precision 2/3: average precision 1/2 + 1/2 * 2/3 = 5/6."""
    assert value(statistics.auroc(SCORES, POSITIVE), 4) == 3.5 / 4
    assert value(statistics.average_precision(SCORES, POSITIVE), 4) == pytest.approx(5 / 6, abs=1e-15)
    assert statistics.roc_curve(SCORES, POSITIVE) == statistics.Curve(across=(0, 0, 0.5, 1), up=(0, 0.5, 1, 1))
    found = statistics.precision_recall_curve(SCORES, POSITIVE)
    assert (found.across, found.up) == ((0.5, 1, 1), pytest.approx((1, 2 / 3, 1 / 2)))


@pytest.mark.parametrize("levels", [None, 6], ids=["distinct", "tied"])
def test_areas_are_scikit_learns(levels: int | None) -> None:
    scores, positive = sample(1, levels=levels)
    weights = np.random.default_rng(2).integers(0, 4, (7, 120)).astype(float)
    found = statistics.auroc(scores, positive)(weights), statistics.average_precision(scores, positive)(weights)
    for row, area, precision in zip(weights, *found, strict=True):
        assert area == pytest.approx(metrics.roc_auc_score(positive, scores, sample_weight=row), abs=1e-12)
        assert precision == pytest.approx(
            metrics.average_precision_score(positive, scores, sample_weight=row), abs=1e-12
        )
    across, up, _ = metrics.roc_curve(positive, scores, drop_intermediate=False)
    curve = statistics.roc_curve(scores, positive)
    np.testing.assert_allclose([curve.across, curve.up], [across, up], atol=1e-12)


def test_no_area_without_both_labels() -> None:
    one, none = np.ones(4, bool), np.zeros(4, bool)
    assert statistics.estimate(statistics.auroc(SCORES, one), EXAMS[:4]) is None
    assert statistics.estimate(statistics.average_precision(SCORES, none), EXAMS[:4]) is None
    assert statistics.estimate(statistics.mean(np.array([])), []) is None


def test_intervals_are_those_of_an_independent_bootstrap_over_exams() -> None:
    """Scikit-learn's areas of exams drawn one by one, with another generator, whose percentiles scatter by 0.005."""
    scores, positive = sample(3)
    exams = np.array(EXAMS)
    names = sorted(set(EXAMS))
    random, areas, precisions = np.random.RandomState(7), [], []
    for _ in range(500):
        rows = np.concatenate([np.flatnonzero(exams == name) for name in random.choice(names, len(names))])
        areas.append(metrics.roc_auc_score(positive[rows], scores[rows]))
        precisions.append(metrics.average_precision_score(positive[rows], scores[rows]))
    for statistic, expected in ((statistics.auroc, areas), (statistics.average_precision, precisions)):
        found = statistics.estimate(statistic(scores, positive), EXAMS)
        assert found is not None
        assert (found.low, found.high) == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])), abs=0.015)


def test_draws_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    exams = [str(n // 3) for n in range(50)]
    whole = np.concatenate(list(statistics.exam_draws(exams))).tobytes()
    monkeypatch.setattr(statistics, "_WEIGHTS", 350)
    blocks = list(statistics.exam_draws(exams))
    assert {len(block) for block in blocks[:-1]} == {7}
    assert np.concatenate(blocks).tobytes() == whole


def test_images_that_repeat_within_exams_do_not_narrow_an_interval() -> None:
    """Every image three times, as three views of one exam: the interval of the single images, not a narrower one."""
    scores, positive = sample(4)
    alone = statistics.estimate(statistics.auroc(scores, positive), [str(n) for n in range(120)])
    tripled = statistics.estimate(
        statistics.auroc(np.repeat(scores, 3), np.repeat(positive, 3)), [str(n // 3) for n in range(360)]
    )
    assert alone is not None
    assert tripled == alone
    assert alone.low is not None
    few = statistics.estimate(statistics.auroc(scores, positive), [str(n % 9) for n in range(120)])
    assert few == statistics.Estimate(value=alone.value)


def delong_by_definition(first: np.ndarray, second: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Difference and p of DeLong et al. 1988, equations 2 to 6, by loops over all pairs."""

    def kernel(x: float, y: float) -> float:
        return 1.0 if y < x else 0.5 if y == x else 0.0

    def components(scores: np.ndarray) -> tuple[list[float], list[float]]:
        xs, ys = scores[positive], scores[~positive]
        v10 = [sum(kernel(x, y) for y in ys) / len(ys) for x in xs]
        v01 = [sum(kernel(x, y) for x in xs) / len(xs) for y in ys]
        return v10, v01

    (a10, a01), (b10, b01) = components(first), components(second)
    s10, s01 = np.cov([a10, b10]), np.cov([a01, b01])
    s = s10 / len(a10) + s01 / len(a01)
    gap = float(np.mean(a10) - np.mean(b10))
    z = gap / sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    return gap, erfc(abs(z) / sqrt(2))


@pytest.mark.parametrize("levels", [None, 6], ids=["distinct", "tied"])
def test_delong_is_its_definition(levels: int | None) -> None:
    scores, positive = sample(5, levels=levels)
    other = np.round((scores + sample(6)[0]) * 3) / 6
    found = statistics.delong(scores, other, positive)
    assert found is not None
    assert (found.difference, found.p) == pytest.approx(delong_by_definition(scores, other, positive), abs=1e-12)
    area = metrics.roc_auc_score(positive, scores) - metrics.roc_auc_score(positive, other)
    assert found.difference == pytest.approx(area)
    assert found.low < found.difference < found.high
    assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


def test_delong_by_hand() -> None:
    """First: positives 3, 4, 1, negatives 2, 0: shares of negatives below 1, 1, 1/2; of positives above 2/3, 1. Second:
    all equal, so every share is 1/2. Differences 1/2, 1/2, 0 (variance 1/12) and 1/6, 1/2 (variance 1/18)."""
    positive = np.array([True, True, True, False, False])
    found = statistics.delong(np.array([3.0, 4, 1, 2, 0]), np.full(5, 7.0), positive)
    error = sqrt(1 / 12 / 3 + 1 / 18 / 2)
    assert variance([1 / 2, 1 / 2, 0]) == pytest.approx(1 / 12)
    assert found is not None
    assert found.difference == pytest.approx(1 / 3)
    assert found.p == pytest.approx(erfc(1 / 3 / error / sqrt(2)))
    assert found.high == pytest.approx(1 / 3 + 1.959964 * error)


def test_delong_without_variance() -> None:
    same = statistics.delong(SCORES, SCORES, POSITIVE)
    assert same == statistics.DeLong(difference=0, low=0, high=0, p=1)
    assert statistics.delong(SCORES, SCORES, np.array([True, False, False, False])) is None
    apart, reversed_ = np.array([0.9, 0.8, 0.2, 0.1]), np.array([0.1, 0.2, 0.8, 0.9])
    assert statistics.delong(apart, reversed_, POSITIVE) is None


def test_calibration_by_hand() -> None:
    """Bins 0.2 (1 image, none positive), 0.6 (2, one positive), 0.9 (1, positive):
    error (0.2 + 2 * 0.1 + 0.1) / 4, Brier (0.01 + 0.16 + 0.36 + 0.04) / 4."""
    found = statistics.calibration(SCORES, POSITIVE)
    assert found.expected_error == pytest.approx(0.125)
    assert found.brier == pytest.approx(0.1425)
    assert [one.images for one in found.bins] == [0, 0, 1, 0, 0, 0, 2, 0, 0, 1]
    assert (found.bins[6].predicted, found.bins[6].observed) == (pytest.approx(0.6), 0.5)
    whole = statistics.calibration(np.array([1.0, 0.0]), np.array([True, False]))
    assert (whole.bins[0].images, whole.bins[9].images) == (1, 1)


def test_calibration_is_scikit_learns() -> None:
    from sklearn.calibration import calibration_curve

    scores, positive = sample(8)
    found = statistics.calibration(scores, positive)
    assert found.brier == pytest.approx(metrics.brier_score_loss(positive, scores))
    observed, predicted = calibration_curve(positive, scores, n_bins=10)
    held = [one for one in found.bins if one.images]
    np.testing.assert_allclose([one.observed for one in held], observed)
    np.testing.assert_allclose([one.predicted for one in held], predicted)

"""Figures of windows, against numbers worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glam_bench.ladder import windows

STEADY = [[900.0], [10.0, 12.0, 11.0], [11.0, 11.0, 11.0], [10.0, 11.0, 13.0]]
RUNS = st.lists(st.lists(st.floats(1, 1e4), min_size=1, max_size=5), min_size=3, max_size=6)


def test_only_the_last_three_windows_count() -> None:
    found = windows.latency(STEADY)
    assert found["windows"] == STEADY
    assert found["n"] == 9
    # sorted: 10 10 11 11 11 11 11 12 13
    assert (found["p50"], found["p90"], found["p95"]) == pytest.approx((11.0, 12.2, 12.6))
    assert found["stable"] is True


@pytest.mark.parametrize(
    ("medians", "stable"), [((10, 10.9, 11.0), True), ((10, 10.5, 11.1), False), ((10, 10), False)]
)
def test_stable_is_three_medians_within_a_tenth(medians: tuple[float, ...], stable: bool) -> None:
    assert windows.is_stable([[m] for m in medians]) is stable


def test_noise_is_twice_the_farthest_median_and_never_nothing() -> None:
    assert windows.noise([[10.0], [10.0], [11.0]]) == pytest.approx(0.2)
    assert windows.noise([[10.0], [10.0], [10.0]]) == windows.LEAST_NOISE


def test_a_drift_of_the_machine_meets_both_sides_of_a_ratio() -> None:
    ours = [[10.0], [20.0], [40.0]]
    theirs = [[30.0], [60.0], [120.0]]
    assert windows.times_as_fast(ours, theirs) == pytest.approx(3)
    assert windows.times_as_fast(theirs, ours) == pytest.approx(1 / 3)


@given(RUNS)
def test_percentiles_are_in_order_and_among_the_runs(rows: list[list[float]]) -> None:
    found = windows.latency(rows)
    runs = [run for window in rows[-3:] for run in window]
    assert min(runs) <= found["p50"] <= found["p90"] <= found["p95"] <= found["p99"] <= max(runs)

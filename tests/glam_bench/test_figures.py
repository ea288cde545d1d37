"""Percentiles and growth against numbers worked out by hand."""

import numpy as np
import pytest

from glam_bench.clock import growth, spread
from glam_bench.record import free_name
from glam_bench.smi import parse, reasons


def test_spread() -> None:
    found = spread([float(n) for n in range(100, -1, -1)])
    assert found == {"p50": 50, "p90": 90, "p99": 99, "best": 0, "runs": 101}


def test_spread_of_one_slow_run_in_ten() -> None:
    found = spread([1.0] * 9 + [11.0])
    assert (found["p50"], found["p90"], found["p99"]) == pytest.approx((1, 2, 10.1))


def test_growth_is_that_of_the_whole_run_by_what_was_seen_after_it_had_settled() -> None:
    """A jump in the first fifth, then 3 for each image: 800 images were seen to grow."""
    done = list(range(0, 1001, 50))
    used = [1e9 * (n < 200) + 3.0 * n for n in done]
    assert growth(done, used) == pytest.approx(3 * 800)


def test_noise_is_no_growth() -> None:
    done = np.arange(0, 10_000, 100)
    noise = np.random.default_rng(0).normal(0, 1000, len(done))
    assert abs(growth(done.tolist(), (1e9 + noise).tolist()) or 0) < 1000


@pytest.mark.parametrize("done", [[], [10], [10, 20], [1, 2, 10, 20]])
def test_too_few_readings_say_nothing(done: list[int]) -> None:
    assert growth(done, [0.0] * len(done)) is None


def test_clock_reasons_in_words() -> None:
    assert reasons("0x0000000000000000") == []
    assert reasons("0x0000000000000024") == ["software power cap", "software thermal slowdown"]
    assert reasons("0x0000000000000801") == ["idle", "0x800"]
    assert reasons("[N/A]") == ["[N/A]"]


def test_a_line_of_nvidia_smi() -> None:
    said = "NVIDIA H200, 580.159.03, P0, 1980, 3201, 1980, 3201, 512.10, 700.00, 41, 1234, 0x0000000000000004\n"
    found = parse(said)
    assert (found["clocks.sm"], found["power.draw"]) == ("1980", "512.10")
    assert found["clocks_held_down_by"] == ["software power cap"]


def test_results_are_never_written_over(tmp_path) -> None:
    names = []
    for _ in range(3):
        names.append(free_name(tmp_path, "nvidia-h200-2026-01-02"))
        names[-1].touch()
    assert [n.name for n in names] == [f"nvidia-h200-2026-01-02{end}.json" for end in ("", "-2", "-3")]

"""Each bar holds where it should, and alone is missed where its number is over."""

from typing import Any

import pytest

from glam_bench.gpu.bars import floor_ms, judge, ratios
from glam_bench.gpu.plan import GROUPS
from glam_bench.record import Record

HALF = "fp16@tensorrt-rtx"
SHAPE = ("n=1,k=1",)
MISSED = {"passed": False, "failures": ["decisions flipped: 1, limit 0"], "limits": {}}
CHAIN = f"chain_times:{HALF}", "n=1,k=1"


def missed(record: Record) -> list[str]:
    return [bar.name for bar in judge(record, GROUPS) if not bar.held]


def put(record: Record, *path: Any, value: Any) -> None:
    """Change one number of a step's results."""
    step, *keys, last = path
    place: Any = record.results(step)
    for key in keys:
        place = place[key]
    place[last] = value


def test_a_good_run_holds_every_bar(record: Record) -> None:
    bars = judge(record, GROUPS)
    assert len(bars) == 17
    assert [bar.name for bar in bars if not bar.held] == []


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (("kernels", "crop", "missed"), [{}], "launches that differ from numpy"),
        (("kernel_times", "n=1,k=1", "propose and crop", "us", "cold"), 60.1, "propose and crop, nothing in L2"),
        ((*CHAIN, "resident", "gpu", "p50"), 1.51, "p50 over the arithmetic floor"),
        ((*CHAIN, "glue", "share"), 0.101, "share of all but the two networks"),
        ((*CHAIN, "watched", "allocations"), 1, "allocations in 20 runs"),
        ((*CHAIN, "watched", "waits"), 1, "waits in 20 runs"),
        ((*CHAIN, "watched", "memory_change_bytes"), 512, "memory change bytes in 20 runs"),
        ((*CHAIN, "watched", "calls_returned_early"), 17, "share of calls that return before the GPU is done"),
        ((*CHAIN, "host_to_host", "raw", "p50"), 1.93, "the same over the chain on the GPU"),
        ((*CHAIN, "host_to_host", "raw_images_per_s_8_threads"), 199, "raw views a second"),
        ((f"parity:{HALF}", "k=3", "verdict"), MISSED, "agreement with the reference"),
        ((f"parity:{HALF}", "k=1", "verdict"), MISSED, "agreement with the reference"),
        ((f"soak:{HALF}", "done"), 9_999, "images of the soak"),
        ((f"soak:{HALF}", "wrong"), 1, "wrong answers"),
        ((f"soak:{HALF}", "host_growth_bytes"), 33 * 1024**2, "growth of host memory"),
        ((f"soak:{HALF}", "device_growth_bytes"), None, "growth of device memory"),
    ],
)
def test_one_number_over_is_one_bar_missed(record: Record, path: tuple[Any, ...], value: Any, name: str) -> None:
    put(record, *path, value=value)
    (only,) = missed(record)
    assert name in only


def test_slow_views_miss_their_own_bars_too(record: Record) -> None:
    put(record, *CHAIN, "resident", "gpu", "p50", value=4.01)
    assert "from an image on the GPU to its results there, p50, ms" in missed(record)
    put(record, *CHAIN, "host_to_host", "raw", "p50", value=8.01)
    assert "from a raw view on the host to its result, p50, ms" in missed(record)


def test_a_difference_whose_reason_is_known_is_a_miss_all_the_same(record: Record) -> None:
    row = record.results(f"parity:{HALF}")["k=1"]
    row["cases"][0].update(same_patches=False, reasons=["patch moved"])
    assert missed(record) == []
    row["verdict"] = MISSED
    (bar,) = (bar for bar in judge(record, GROUPS) if not bar.held)
    assert (bar.of, bar.found) == (HALF, "k=1: decisions flipped: 1, limit 0")


def test_what_was_not_measured_is_missed_and_what_was_not_asked_for_is_not_told(record: Record) -> None:
    nothing = Record(record.path, {"steps": {}})
    bars = judge(nothing, GROUPS)
    assert len(bars) == 17
    assert not any(bar.held for bar in bars)
    assert {bar.of for bar in judge(record, ("soak",))} == {HALF}
    assert judge(record, ()) == []


def test_floor(record: Record) -> None:
    """30 and 690 GFLOP at 720 TFLOP/s."""
    assert floor_ms(record, "fp16", 1, 1) == pytest.approx(1.0)
    assert floor_ms(record, "fp16", 4, 6) == pytest.approx(4 * (30 + 6 * 690) / 720)
    assert floor_ms(record, "bf16", 1, 1) is None


def test_ratios_are_to_the_half_engines_whole_chain(record: Record) -> None:
    found = ratios(record)
    assert found["torch fp32"] == pytest.approx({"chain": 20, "networks": 15})
    assert found["fp32@onnx-cuda"] == pytest.approx({"chain": 10})
    assert found.keys() == {"torch fp32", "fp32@onnx-cuda"}


@pytest.mark.parametrize(("failed", "held"), [([], True), (["gpu_streams::test_x"], False)])
def test_tests_of_the_gpu_count_where_they_ran(record: Record, failed: list[str], held: bool) -> None:
    record.add("gpu_tests", {"device": {"passed": 60, "skipped": 20, "failed": failed}})
    (bar,) = (bar for bar in judge(record, GROUPS) if bar.name == "tests of the GPU that fail")
    assert (bar.found, bar.held) == (f"{len(failed)} of {60 + len(failed)}", held)

"""Roofline, parity and the machine's counters, against numbers worked out by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.engines import fake_identity

from glam_bench import meters, schema
from glam_bench.ladder import isa
from glam_bench.ladder.roofline import roofline
from glam_bench.meters import GpuEnergy
from glam_bench.parity import parity
from glam_bench.schema import Peaks
from glam_deploy.agreement.answers import Answer
from glam_deploy.agreement.limits import THRESHOLDS
from glam_deploy.json_records import to_json
from glam_deploy.networks import GLAM

SAMPLE = Path(__file__).with_name("sample.json")
PEAKS = Peaks(flop_per_s={"fp32": 1e11, "bf16": None, "int8": 4e11}, bytes_per_s=1e10)
MIXED = "global int8, local winograd, fusion fp32"
ARITHMETIC = {"global": {"flop": 1e9, "bytes": 1e9}, "local": {"flop": 1e11, "bytes": 1e9}}
"""One operation a byte: memory is the roof. A hundred: arithmetic is."""


def test_share_of_the_lower_roof() -> None:
    rung = next(rung for rung in schema.read(SAMPLE)["ladder"] if rung["key"] == "openvino-int8")
    rung["stages_ms"] = {"global": 200.0, "local": 1500.0}
    rung["engine"] = to_json(fake_identity(precision="int8+fp32"))
    whole, patch = roofline([rung], ARITHMETIC, PEAKS, 3)["stages"]
    # 1 GFLOP in 0.2 s under 10 GFLOP/s of memory; 100 GFLOP in 0.5 s a patch under 400 GFLOP/s
    assert (whole["share_of_peak"], patch["share_of_peak"]) == pytest.approx((0.5, 0.5))
    assert (patch["ms"], patch["precision"]) == (500, "int8")


def test_a_type_without_a_peak_has_the_roof_of_fp32_and_a_gpu_has_none() -> None:
    rung = next(rung for rung in schema.read(SAMPLE)["ladder"] if rung["latency_ms"])
    rung["engine"] = to_json(fake_identity(precision="bf16"))
    assert {stage["precision"] for stage in roofline([rung], ARITHMETIC, PEAKS, 1)["stages"]} == {"fp32"}
    rung["engine"] = to_json(fake_identity(precision="fp16", device="gpu"))
    assert roofline([rung], ARITHMETIC, PEAKS, 1)["stages"] == []


def answer(benign: float, cells: int, place: int = 0) -> Answer:
    """Benign saliency in the first cells of the first row of a patch and of the map beneath; nothing malignant."""
    patch, whole = np.zeros((1, 2, 128, 128), np.float32), np.zeros((2, 184, 120), np.float32)
    patch[0, 0, 0, :cells] = benign
    whole[0, 0, : cells // 4] = benign
    return {
        "saliency_global": whole,
        "saliency_patches": patch,
        "patch_locations": np.array([[place, 0]]),
        "y_global": np.array([benign, 0], np.float32),
    }


def test_dice_by_threshold_median_and_worst() -> None:
    """Of two images one is equal; in the other a patch's row, at the reference's 8 cells, is 4 cells long.

    The map beneath has cells of 4 x 4: 0.4 where both are, 0.2 where the map is alone.
    """
    expected = [answer(0.4, 8), answer(0.4, 8)]
    found = [answer(0.4, 8), {**answer(0.4, 8), "saliency_patches": answer(0.4, 4)["saliency_patches"]}]
    compared = parity(["a", "b"], found, expected, GLAM)
    assert compared["worst_dice"]["benign"]["0.3"] == pytest.approx(2 * 4 / (4 + 8))
    assert compared["dice"]["benign"]["0.3"] == pytest.approx((1 + 2 / 3) / 2)
    assert compared["worst_dice"]["benign"]["0.1"] == 1
    assert compared["worst_dice"]["benign"]["0.5"] is None
    assert compared["worst_dice"]["malignant"] == dict.fromkeys(map(str, THRESHOLDS))
    assert compared["max_difference"]["saliency_patches"] == pytest.approx(0.4)


def test_a_moved_patch_is_told_by_case() -> None:
    compared = parity(["a", "b"], [answer(0.9, 8), answer(0.9, 8, place=16)], [answer(0.9, 8)] * 2, GLAM)
    assert compared["same_patches"] == 1
    assert [(case["case"], case["moved_pixels"]) for case in compared["per_case"]] == [("a", 0), ("b", 16)]


def domain(powercap: Path, name: str, microjoules: int) -> None:
    folder = powercap / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text("1000000000\n")


def test_energy_of_the_packages_over_a_counter_that_wraps(tmp_path: Path) -> None:
    domain(tmp_path, "intel-rapl:0", 999_000_000)
    domain(tmp_path, "intel-rapl:1", 0)
    domain(tmp_path, "intel-rapl:0:0", 0)
    meter = meters.EnergyMeter(tmp_path)
    domain(tmp_path, "intel-rapl:0", 2_000_000)
    domain(tmp_path, "intel-rapl:1", 4_000_000)
    domain(tmp_path, "intel-rapl:0:0", 77_000_000)
    assert meter.joules() == pytest.approx(3 + 4)


class Driver:
    """Counts 1.5 J more each time it is asked; `fails` is the call that does."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.asked = fails, 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            if name == "nvmlDeviceGetTotalEnergyConsumption":
                self.asked += 1
                arguments[1]._obj.value = 1500 * self.asked
            return 999 if name == self.fails else 0

        return call


def test_energy_of_the_gpu() -> None:
    meter = GpuEnergy(library=Driver())
    assert [meter.joules(), meter.joules()] == [1.5, 3.0]


@pytest.mark.parametrize(
    "fails", ["nvmlInit_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetTotalEnergyConsumption"]
)
def test_a_gpu_that_does_not_tell(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert GpuEnergy(library=Driver(fails)).joules() is None
    monkeypatch.setattr(meters, "NVML", "libno-such.so.1")
    assert GpuEnergy().joules() is None


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert meters.EnergyMeter(tmp_path).joules() is None
    assert meters.clock_mhz(tmp_path, tmp_path / "cpuinfo") is None
    assert meters.throttled(tmp_path) is None
    assert meters.stolen((0, 0), meters.processor_time(tmp_path / "stat")) is None


def test_clocks_and_stolen_time(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("cpu MHz\t\t: 2000.0\nflags : x\ncpu MHz\t\t: 3000.0\n")
    assert meters.clock_mhz(tmp_path, tmp_path / "cpuinfo") == 2500
    (tmp_path / "stat").write_text("cpu  10 0 10 60 0 0 0 20 0 0\ncpu0 1 1\n")
    assert meters.processor_time(tmp_path / "stat") == (20, 100)
    assert meters.stolen((10, 50), (20, 100)) == pytest.approx(0.2)


# peaks


def rung(key: str, precision: str, global_ms: float, local_ms: float) -> schema.Rung:
    found = next(one for one in schema.read(SAMPLE)["ladder"] if one["key"] == "onnx")
    engine = to_json(fake_identity(key, precision))
    return {**found, "key": key, "engine": engine, "stages_ms": {"global": global_ms, "local": local_ms}}


def test_no_direct_convolution_is_above_its_roof() -> None:
    """The first does 500 GFLOP/s where products reached 100: no product was the peak. Memory's roof is 10 GFLOP/s."""
    ladder = [rung("onnx", "fp32", 2, 200), rung("openvino", "fp32", 200, 2000)]
    found = roofline(ladder, ARITHMETIC, PEAKS, 1)
    assert found["peaks"]["flop_per_s"] == {"fp32": pytest.approx(5e11), "bf16": None, "int8": 4e11}
    shares = [stage["share_of_peak"] for stage in found["stages"]]
    # 1 GFLOP in 2 ms is more than memory brings, so arithmetic is its roof; in 200 ms it is half of what memory brings
    assert shares == pytest.approx([1, 1, 0.5, 0.1])


def test_winograds_form_is_named_and_is_no_peak() -> None:
    ladder = [rung("openvino-winograd", "fp32", 200, 200), rung("openvino-mixed", MIXED, 200, 200)]
    found = roofline(ladder, ARITHMETIC, PEAKS, 1)
    assert [stage.get("algorithm") for stage in found["stages"]] == ["direct", "winograd", "direct", "winograd"]
    assert [stage["precision"] for stage in found["stages"]] == ["fp32", "fp32", "int8", "fp32"]
    assert found["peaks"] == PEAKS
    assert found["stages"][1]["share_of_peak"] == pytest.approx(5)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse4_2", {"fp32": None, "bf16": None, "int8": None}),
        ("avx avx2 fma", {"fp32": 32, "bf16": None, "int8": 128}),
        ("avx avx2 fma avx512f avx512bw avx512_vnni", {"fp32": 64, "bf16": None, "int8": 256}),
        ("avx avx2 fma avx512f avx512_vnni avx512_bf16", {"fp32": 64, "bf16": 128, "int8": 256}),
        ("fma avx512f avx512_vnni avx512_bf16 amx_bf16 amx_int8", {"fp32": 64, "bf16": 2048, "int8": 4096}),
    ],
)
def test_operations_a_cycle(flags: str, expected: dict[str, int | None]) -> None:
    """As the makers' manuals have them: 16 lanes x 2 units x 2 for AVX-512; 16 x 16 x 32 x 2 in 16 cycles for AMX."""
    assert {name: isa.operations_a_cycle(name, frozenset(flags.split())) for name in expected} == expected


@pytest.mark.skipif(isa.clock_hz() is None, reason="the clock is measured on x86-64 alone")
def test_the_clock_is_one_that_processors_have() -> None:
    assert 5e8 < (isa.clock_hz() or 0) < 7e9

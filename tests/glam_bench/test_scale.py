"""The calculator of docs/scale.md against cases computed by hand, the page against the calculator."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from glam_bench import scale

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/scale.md").read_text("utf-8")
ROUND = scale.Load(
    images=365.25 * 86400 * 5,  # 5 a second all the year, 10 in half of it
    codec=scale.Codec(core_s=0.5, mb=2.0),
    engine=scale.Engine(core_s=3.0, gpu_s=0.01, source=""),
    busy=0.5,
)


def test_need() -> None:
    need = scale.need_of(ROUND, 10)
    found = (need.rate, need.decode_cores, need.inference_cores, need.gpus, need.read_mb_s)
    assert found == pytest.approx((1.0, 0.5, 3.0, 0.01, 2.0))
    assert need.host_cores == pytest.approx(0.0672)


def test_rates_and_days() -> None:
    node = scale.Node(cores=36, gpus=2, gbit_s=0.08)  # 10 MB/s
    assert scale.rates_of(ROUND, node) == pytest.approx({"cores": 36 / 3.5672, "reading": 5.0, "GPU": 200.0})
    assert scale.days(ROUND, node, 1) == (pytest.approx(365.25), "reading")
    assert scale.days(ROUND, node, 100, scale.ArchiveFigures(scheduling_s=0.01)) == (pytest.approx(18.2625), "driver")


@pytest.mark.parametrize("command", re.findall(r"^\$ python -m glam_bench\.scale(.*)$", PAGE, re.MULTILINE))
def test_the_page_has_the_output(command: str) -> None:
    result = CliRunner().invoke(scale.main, command.split())
    assert result.exit_code == 0
    assert f"$ python -m glam_bench.scale{command}\n{result.output}" in PAGE


def test_figures_are_those_of_their_sources() -> None:
    performance = (ROOT / "docs/performance.md").read_text("utf-8")
    names = {
        "jpeg-2000": "JPEG 2000 | OpenJPEG",
        "htj2k": "HTJ2K | OpenJPEG, which glam-deploy uses",
        "jpeg-lossless": "JPEG Lossless | libjpeg-turbo",
        "jpeg-ls": "JPEG-LS | CharLS",
        "rle": "RLE | imagecodecs",
    }
    for codec, row in names.items():
        found = scale.CODECS[codec]
        assert f"| {row} | {found.core_s * 1000:.0f} ms | {found.mb} MB |" in performance
    record = json.loads((ROOT / "benchmarks/results/nvidia-h200-2026-11-28.json").read_text("utf-8"))
    rate = record["steps"]["soak:fp16@onnx-cuda"]["results"]["images_per_s"]
    assert 1 / scale.ENGINES["h200"].gpu_s == pytest.approx(rate, abs=0.5)

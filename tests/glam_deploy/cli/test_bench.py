"""`glam-deploy bench`: what is refused; what it measures is in tests/glam_bench/bench."""

from pathlib import Path

import numpy as np
import pytest
from support.bundles import fill
from support.commands import Cli
from support.report import gate_folder, parse

from glam_bench import bench, schema
from glam_deploy.records import View
from glam_export.demo.phantom import phantom_view

SAMPLE = Path(__file__).parents[2] / "glam_bench/bench/sample.json"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "tensorflow"), "tensorflow: unknown; choose from auto, onnx"),
        (("--bundle", "nothing"), "is not a bundle"),
        (("compare", "a.json", "b.json"), "cannot be read as JSON"),
    ],
)
def test_wrong_usage(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    said = cli("bench", *arguments)
    assert said.code == 2
    assert message in " ".join(said.err.split())


def test_what_is_written_has_the_pictures_of_gates(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "bench", lambda settings, tell: schema.read(SAMPLE))
    (tmp_path / "bundle").mkdir()
    fill(tmp_path / "bundle")
    gate = gate_folder(tmp_path / "gate", {"01_L-CC": (1968, 200)})
    said = cli("bench", "--bundle", tmp_path / "bundle", "--gate", gate, "--out", tmp_path / "out")
    assert (said.code, schema.read(tmp_path / "out/bench.json")) == (0, schema.read(SAMPLE))
    page = parse((tmp_path / "out/bench.html").read_text("utf-8"))
    assert len(page.section("gate-1").all("img")) == 1


def test_an_engine_without_its_hardware_says_what_could_run_here(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle").mkdir()
    fill(tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    image = tmp_path / "0_L-CC.npy"
    np.save(image, phantom_view(0, View.L_CC, shape=(2048, 1536)).pixels)
    said = cli("bench", "--engine", "fp16", "--bundle", tmp_path / "bundle", "--images", image)
    told = " ".join(said.err.split())
    assert said.code == 3
    assert "'fp16' cannot run here: " in told
    assert "Engines that can run on this machine, if the bundle has them: onnx" in told
    assert not (tmp_path / "bench").exists()

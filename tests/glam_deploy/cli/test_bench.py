"""`glam-deploy bench`: what is refused; what it measures is in tests/glam_bench/bench."""

from pathlib import Path

import numpy as np
import pytest
from support_bundles import fill
from support_commands import Cli

from glam_deploy.records import View
from glam_export.demo.phantom import phantom_view


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "tensorflow"), "tensorflow: unknown; choose from auto, onnx"),
        (("--bundle", "nothing"), "no bundle there"),
        (("compare", "a.json", "b.json"), "cannot be read as JSON"),
    ],
)
def test_wrong_usage(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    said = cli("bench", *arguments)
    assert said.code == 2
    assert message in " ".join(said.err.split())


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
    assert "'fp16' cannot run here." in told
    assert "These could run here, where the bundle has them: onnx" in told
    assert not (tmp_path / "bench").exists()

"""`run` with several views at a time: --batch, --streams auto and the selection of GPUs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import engines as support_engines
from support.batching import Batching
from support.commands import Cli

from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.registry import OWNERS
from glam_deploy.runtime import pipeline as pipeline_module
from glam_deploy.runtime import streams


@pytest.fixture
def folder(image: Path) -> Path:
    """Six views, of which the third is black."""
    pixels = support_engines.small_view().pixels
    for n in range(6):
        changed = pixels * (n != 2) + (pixels > 0) * n * 10 * (n != 2)
        Image.fromarray(changed.astype(np.uint16)).save(image.parent / f"{n}_L-CC.png")
    return image.parent


def reports(folder: Path) -> list[dict[str, Any]]:
    """What a run has written, without times and names."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*_L-CC.json"))]
    return [{key: one[key] for key in ("status", "error", "predictions", "patches", "input")} for one in found]


def test_a_run_in_batches_gives_what_single_views_give(
    folder: Path, bundle: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The views of the batch with the black one run again, each alone."""
    chains: list[Batching] = []

    def make(*arguments: Any, **options: Any) -> Batching:
        chains.append(Batching(*arguments, **options))
        return chains[-1]

    monkeypatch.setattr(pipeline_module, "HostChain", make)
    run = ("run", folder, "--bundle", bundle, "--no-picture")
    assert cli(*run, "--out", tmp_path / "single").code == 1
    assert cli(*run, "--out", tmp_path / "batch", "--batch", 4).code == 1
    assert chains[0].sizes == [1] * 6
    assert chains[1].sizes.count(4) == 1
    assert chains[1].sizes.count(1) == 2 + 4
    single, batch = reports(tmp_path / "single"), reports(tmp_path / "batch")
    assert [one["status"] for one in single] == ["done"] * 2 + ["failed"] + ["done"] * 3
    assert batch == single


def test_a_batch_on_a_cpu_is_refused(image: Path, bundle: Path, cli: Cli, tmp_path: Path) -> None:
    said = cli("run", image, "--bundle", bundle, "--out", tmp_path / "out", "--batch", 4)
    assert said.code == 2
    assert "batch = 4: engine 'onnx' computes batches of 1, because it runs on the CPU" in " ".join(said.err.split())


def test_streams_that_are_measured(
    folder: Path, bundle: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is chosen, the results are the same, and say what was chosen."""

    def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
        opened.append(options.streams)
        return replace(support_engines.opened_fakes(), streams=options.streams or 1)

    opened: list[int | None] = []
    monkeypatch.setitem(OWNERS, "onnx", replace(OWNERS["onnx"], options=("streams",)))
    monkeypatch.setattr(support_engines, "open_engines", open_engines)
    monkeypatch.setattr("glam_deploy.cli.run.usable_cores", lambda: 2)
    run = ("run", folder, "--bundle", bundle, "--no-picture", "--ungated", "--engine", "onnx")
    cli(*run, "--out", tmp_path / "one", "--streams", 1)
    said = cli(*run, "--out", tmp_path / "few", "--streams", "auto")
    assert "streams auto: 1, because there are too few inputs for a measurement" in said.err
    assert opened == [1, 1]
    monkeypatch.setattr(streams, "FEWEST_INPUTS", 6)
    said = cli(*run, "--out", tmp_path / "auto", "--streams", "auto")
    assert opened[2:4] == [1, 2]
    report = json.loads((tmp_path / "auto/0_L-CC.json").read_text())
    found = report["provenance"]["streams"]
    assert found["views_per_s"].keys() == {"1", "2"}
    assert opened[4:] == [found["chosen"]]
    assert f"streams auto: {found['chosen']} (" in said.err
    assert reports(tmp_path / "auto") == reports(tmp_path / "one")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--device", "0,x", "'0,x': expected the index of a GPU, several with commas (0,1), or all"),
        ("--device", "1,1", "device = [1, 1]: expected at least one index, and each once"),
        ("--device", "-1", "device = -1: expected a whole number of 0 or more"),
        ("--device", "0,1", "device = [0, 1]: engine 'onnx' runs on the CPU"),
        ("--device", "all", "device = 'all': engine 'onnx' runs on the CPU"),
        ("--streams", "some", "'some' is not a valid number of streams: expected a whole number, or auto"),
        ("--streams", "auto", "--streams auto is for OpenVINO engines, and the engine is onnx"),
        ("--batch", "0", "0 is not in the range x>=1"),
    ],
)
def test_options_that_cannot_be(
    image: Path, bundle: Path, cli: Cli, tmp_path: Path, option: str, value: str, message: str
) -> None:
    said = cli("run", image, "--bundle", bundle, "--engine", "onnx", "--out", tmp_path / "out", option, value)
    assert said.code == 2
    assert message in " ".join(said.err.split())

"""`run --resume` after another change than of the inputs: only what decides the numbers counts."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.commands import Cli, Said
from support.engines import small_view
from support.gate import IDENTITY, Candidate

from glam_deploy.cli import job

KEPT = "0 done, 0 skipped, 0 failed, 2 kept"
AGAIN = "2 done, 0 skipped, 0 failed, 0 kept"


@pytest.fixture
def run(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> Callable[..., Said]:
    """Over a folder of two views."""
    pixels = small_view().pixels
    Image.fromarray(np.where(pixels > 0, pixels + 7, 0).astype(np.uint16)).save(image.parent / "2_L-CC.png")

    def run_over(*more: object, code: int = 0) -> Said:
        arguments = ("run", image.parent, "--bundle", bundle, "--out", tmp_path / "out", "--no-picture", *more)
        said = cli(*arguments)
        assert said.code == code, said.err
        return said

    return run_over


def last(said: Said) -> str:
    return said.out.splitlines()[-1].partition(";")[0]


def explained(said: Said) -> list[str]:
    return [line for line in said.err.splitlines() if "done again" in line]


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("engine", [("onnx",), ("openvino", "--ungated")])
def test_a_gate_between_two_runs_changes_no_result(
    cli: Cli, run: Callable[..., Said], bundle: Path, image: Path, monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    candidate = Candidate(monkeypatch)
    run("--engine", *engine)
    for passes in (True, False):
        candidate.wrong = {} if passes else {"saliency_patches": -0.2}
        gate = cli("gate", "--bundle", bundle, "--engine", "openvino", "--reference", "onnx", "--images", image)
        assert gate.code == (0 if passes else 4), gate.err
        said = run("--engine", *engine, "--resume")
        assert (last(said), explained(said)) == (KEPT, [])
    assert cli("verify", "--bundle", bundle, "--engine", "onnx").code == 0


def test_a_moved_bundle_and_a_remark_in_it_change_no_result(
    run: Callable[..., Said], bundle: Path, tmp_path: Path
) -> None:
    run()
    bundle.rename(tmp_path / "moved")
    change(tmp_path / "moved", lambda manifest: manifest.update(licence="another"))
    assert last(run("--resume", "--bundle", tmp_path / "moved")) == KEPT


def test_another_checkpoint_is_another_run(run: Callable[..., Said], bundle: Path, tmp_path: Path) -> None:
    run()
    before = json.loads((bundle / "manifest.json").read_text())["checkpoint"]["sha256"]
    change(bundle, lambda manifest: manifest["checkpoint"].update(sha256="5a" * 32))
    said = run("--resume")
    assert last(said) == AGAIN
    made_with = f"another checkpoint (SHA-256 {before[:12]}..., now 5a5a5a5a5a5a...)"
    assert explained(said) == [
        f"Results in {tmp_path / 'out'} were made with {made_with}: their inputs are done again."
    ]
    assert last(run("--resume")) == KEPT


def test_another_engine_is_another_run(run: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    Candidate(monkeypatch)
    run("--engine", "onnx")
    said = run("--engine", "openvino", "--ungated", "--resume")
    assert last(said) == AGAIN
    (line,) = explained(said)
    assert "not openvino fp32 openvino made up cpu" in line
    other = replace(IDENTITY, sha256={"global": "12", "local": "22", "fusion": "33"})
    monkeypatch.setattr("support.gate.IDENTITY", other)
    said = run("--engine", "openvino", "--ungated", "--resume")
    assert last(said) == AGAIN
    assert "other graphs or files of engine openvino fp32" in explained(said)[0]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--patches", 2), "--patches 1, not 2"),
        (("--full", "--save-input"), "other settings (full, save input)"),
        (("--view", "L-CC"), "other settings (view)"),
    ],
)
def test_other_settings_are_named(run: Callable[..., Said], option: tuple[object, ...], told: str) -> None:
    run("--patches", 1)
    said = run("--resume", "--patches", 1, *option)
    assert last(said) == AGAIN
    (line,) = explained(said)
    assert told in line


def test_another_release_is_another_run(run: Callable[..., Said], tmp_path: Path) -> None:
    run()
    for path in (tmp_path / "out").glob("*.json"):
        report = json.loads(path.read_text())
        report["provenance"]["versions"]["glam_deploy"] = "0.0.1"
        path.write_text(json.dumps(report))
    said = run("--resume")
    assert last(said) == AGAIN
    assert "glam-deploy 0.0.1, not " in explained(said)[0]


def replaced(path: Path) -> None:
    """Let another image take the name of this one."""
    Image.fromarray(small_view().pixels.T.copy()).save(path.with_suffix(".new"), "png")
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("is_before", [True, False])
def test_an_image_replaced_while_it_is_read_has_no_result(
    run: Callable[..., Said], image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_before: bool
) -> None:
    """It had the scores of one image under the digest of the other, which `--resume` kept."""

    def read(path: Path, **options: Any) -> Any:
        if is_before and path == image:
            replaced(path)
        found = real(path, **options)
        if not is_before and path == image:
            replaced(path)
        return found

    real = job.read
    monkeypatch.setattr(job, "read", read)
    run(code=1)
    report = json.loads((tmp_path / "out/1_L-CC.json").read_text())
    assert report["status"] == "failed"
    assert "while it was read" in report["error"]["message"]
    monkeypatch.setattr(job, "read", real)
    assert last(run("--resume")) == "1 done, 0 skipped, 0 failed, 1 kept"
    made = json.loads((tmp_path / "out/1_L-CC.json").read_text())["provenance"]["run"]
    assert made["input_sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert last(run("--resume")) == KEPT

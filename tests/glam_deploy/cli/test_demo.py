"""`glam-deploy demo`: what it refuses before the minutes that it takes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bundles import snapshot, unprivileged
from support.commands import PLAIN, Cli, Start, install_line, without

from glam_deploy.errors import UsageError
from glam_deploy.input_files import find_inputs
from glam_deploy.reading import read
from glam_deploy.records import View
from glam_export.demo import material
from glam_export.demo.phantom import phantom_view


def test_help(cli: Cli) -> None:
    said = cli("demo", "--help")
    assert said.code == 0
    assert "nothing about patients" in " ".join(said.out.split())


@pytest.mark.parametrize("package", ["torch", "onnx", "onnxscript", "safetensors", "pydicom"])
def test_missing_package(start: Start, tmp_path: Path, package: str) -> None:
    process = start("demo", "--out", tmp_path / "demo", code=without(package, code=PLAIN))
    out, err = process.communicate()
    assert (process.returncode, out) == (3, "")
    assert err == (
        f"glam-deploy: this command needs {package}, which this Python lacks. "
        f"Install with: {install_line('export,dicom')}\n"
    )
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--seed", "one"], ["exam"]])
def test_wrong_usage(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli("demo", *arguments)
    assert (said.code, said.out) == (2, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/demo"])
def test_out_that_is_no_folder(cli: Cli, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    said = cli("demo", "--out", tmp_path / place)
    assert (said.code, said.out) == (2, "")
    assert "cannot write to" in said.err
    assert snapshot(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize(
    "mine",
    [["exam/L-CC.dcm"], ["weights.safetensors", "notes.txt"], ["results/L-CC.json", "bundle/manifest.json"]],
    ids=lambda names: names[0],
)
def test_files_that_are_no_demo_are_never_replaced(cli: Cli, tmp_path: Path, mine: list[str]) -> None:
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    said = cli("demo", "--out", tmp_path)
    assert (said.code, said.out) == (2, "")
    assert "other files than an earlier demo" in said.err
    assert snapshot(tmp_path) == dict.fromkeys(mine, b"mine")


@pytest.mark.parametrize(("options", "network"), [([], "GLAM"), (["--network", "gmic"], "GMIC")])
def test_earlier_demo_is_replaced(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], network: str
) -> None:
    """As far as its first step, which an error of the test's ends."""

    def stop(path: Path, network: str) -> None:
        raise UsageError(f"would write {path.name} of {network}")

    monkeypatch.setattr(material, "write_checkpoint", stop)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "weights.safetensors").write_bytes(b"earlier")
    (tmp_path / ".DS_Store").write_bytes(b"left by a file manager")
    assert f"would write weights.safetensors of {network}" in cli("demo", "--out", tmp_path, *options).err


def test_out_without_rights(cli: Cli) -> None:
    with unprivileged():
        said = cli("demo", "--out", "/root_of_nobody")
    assert (said.code, said.out) == (2, "")
    assert "cannot write to" in said.err


def test_folder_of_the_exam_holds_nothing_but_the_exam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "phantom_exam", lambda seed: [phantom_view(seed, View.L_CC)])
    truth = material.write_exam(tmp_path / "exam", tmp_path / "masks", 0)
    assert find_inputs([tmp_path / "exam"]) == list(truth) == [tmp_path / "exam/L-CC.dcm"]
    ((path, view),) = truth.items()
    np.testing.assert_array_equal(read(path).pixels, view.pixels)
    with Image.open(tmp_path / "masks/L-CC.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), view.mask * 100)

"""Wrong options, missing packages and unwritable folders end a command before its long work begins."""

import errno
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest
from support import tensorrt as support_tensorrt
from support.bundles import fill
from support.commands import Cli
from support.export import load_stub

from glam_bench import bench as bench_run
from glam_deploy.bundle import Bundle, write
from glam_deploy.cli import export as export_command
from glam_deploy.cli import gate_images
from glam_deploy.cli import run as run_command
from glam_deploy.engines import registry
from glam_deploy.errors import BackendUnavailable
from glam_deploy.gpu.engines.tensorrt import store
from glam_export import exporter
from glam_export.exporter import ExportOptions
from glam_export.steps.write import WriteGraphs


def begun(*_: object, **__: object) -> NoReturn:
    raise AssertionError("the work has begun")


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO and PyTorch are not installed."""
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name in ("openvino", "torch") else find_spec(name))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A bundle of FP32 graphs, without a precision search."""
    (tmp_path / "plain").mkdir()
    fill(tmp_path / "plain")
    return tmp_path / "plain"


# bench


@pytest.mark.parametrize("engine", ["openvino", "onnx,openvino", "torch"])
def test_bench_knows_first_what_is_not_installed(
    cli: Cli, plain: Path, tmp_path: Path, lacking: None, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(bench_run, "_images", begun)
    said = cli("bench", "--quick", "--engine", engine, "--bundle", plain, "--out", tmp_path / "new")
    assert said.code == 3
    assert f"engine '{engine.rsplit(',', maxsplit=1)[-1]}' needs" in said.err
    assert "Engines that can run on this machine, if the bundle has them: onnx" in said.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ("openvino-int8", "has no graphs/global.int8.onnx"),
        ("openvino-winograd", "has no graphs/local.winograd.onnx"),
        ("onnx-winograd", "has no graphs/local.winograd.onnx"),
        ("openvino-mixed", "has no precision search"),
    ],
)
@pytest.mark.parametrize("command", ["bench", "gate", "verify"])
def test_graphs_that_the_bundle_lacks(
    cli: Cli, plain: Path, monkeypatch: pytest.MonkeyPatch, command: str, engine: str, told: str
) -> None:
    monkeypatch.setattr(bench_run, "_images", begun)
    monkeypatch.setattr(gate_images, "export_module", begun)
    monkeypatch.setattr(Bundle, "check", begun)
    said = cli(command, "--engine", engine, "--bundle", plain, *(["--reference", "onnx"] if command == "gate" else []))
    assert said.code == 4
    assert told in said.err


def test_bench_knows_first_where_it_cannot_write(
    cli: Cli, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_run, "bench", begun)
    (tmp_path / "file").write_text("x")
    for arguments, told in {
        ("--out", tmp_path / "file/new"): "cannot write to",
        ("--out", tmp_path / "file"): "cannot write to",
        ("--gate", tmp_path): f"{tmp_path / 'gate.json'} cannot be used",
    }.items():
        said = cli("bench", "--bundle", plain, *arguments)
        assert said.code == 2
        assert told in said.err


# gate


def test_gate_knows_first_what_is_not_installed(
    cli: Cli, plain: Path, lacking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_images, "export_module", begun)
    said = cli("gate", "--engine", "openvino", "--bundle", plain)
    assert (said.code, "engine 'openvino' needs openvino" in said.err) == (3, True)


def test_gate_knows_first_that_its_reference_is_missing(
    cli: Cli, plain: Path, lacking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_images, "export_module", begun)
    said = cli("gate", "--engine", "onnx", "--reference", "torch", "--bundle", plain)
    assert said.code == 3
    assert "engine 'torch' needs torch" in said.err


def test_gate_knows_first_that_the_verdict_cannot_be_stored(
    cli: Cli, bundle: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(**_: object) -> NoReturn:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("glam_deploy.cli.gate.open_pair", begun)
    monkeypatch.setattr(write.tempfile, "TemporaryFile", read_only)
    said = cli("gate", "--engine", "onnx", "--reference", "torch", "--images", image, "--bundle", bundle)
    assert said.code == 2
    assert "the verdict cannot be written (Read-only file system)" in said.err


# verify, run


def test_verify_knows_first_what_is_not_installed(
    cli: Cli, plain: Path, lacking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "check", begun)
    said = cli("verify", "--engine", "openvino", "--bundle", plain)
    assert (said.code, "needs openvino" in said.err) == (3, True)


def test_run_knows_first_where_it_cannot_write(
    cli: Cli, bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_command, "load", begun)
    (tmp_path / "file").write_text("x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / f"{image.stem}.png").write_bytes(b"a picture of the user's")
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "results.csv").write_text("a table of the user's")
    for out, told in {
        "file/new": "cannot write to",
        "file": "cannot write to",
        "mine": "was not written by glam-deploy",
    }.items():
        said = cli("run", image, "--bundle", bundle, "--out", tmp_path / out)
        assert (said.code, told in said.err) == (2, True), said.err
    said = cli("run", image.parent, "--bundle", bundle, "--out", tmp_path / "table")
    assert (said.code, "results.csv exists and was not written" in said.err) == (2, True)


def test_a_run_that_is_refused_makes_no_folder(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    said = cli("run", image, "--bundle", tmp_path / "nothing", "--out", tmp_path / "a/b")
    assert said.code == 2
    assert not (tmp_path / "a").exists()


# export


def test_export_knows_first_that_kernels_cannot_be_compiled(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> NoReturn:
        raise BackendUnavailable("NVRTC, which compiles CUDA kernels, is missing")

    support_tensorrt.install(monkeypatch)
    monkeypatch.setattr(export_command, "make_bundles", begun)
    monkeypatch.setattr(store, "compile_cubin", missing)
    said = cli("export", "--weights", "w.pt", "--out", tmp_path / "new", "--engine", "fp16")
    assert (said.code, "NVRTC" in said.err) == (3, True)


def test_calibration_images_without_graphs_in_8_bits_are_refused(cli: Cli, tmp_path: Path) -> None:
    said = cli("export", "--weights", "w.pt", "--out", tmp_path / "new", "--calibration", tmp_path)
    assert said.code == 2
    assert "Add --precision int8 or --precision auto, or leave --calibration out" in said.err


def test_calibration_images_are_read_before_graphs_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "require", lambda *extras, user: None)
    monkeypatch.setattr("glam_export.steps.load.load_checkpoint", load_stub)
    monkeypatch.setattr(WriteGraphs, "run", begun)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "L-CC.png").write_bytes(b"no picture")
    options = ExportOptions(precisions=("fp32", "int8"), calibration=tmp_path / "images")
    with pytest.raises(Exception, match=r"L-CC\.png: the format of the content is unknown"):
        exporter.export_bundle(tmp_path / "w.pt", tmp_path / "out", options)
    assert not (tmp_path / "out").exists()

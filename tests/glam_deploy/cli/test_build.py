"""`glam-deploy build` and `export --engine`: what is put into the bundle, and how each refusal ends."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from support import tensorrt as support_tensorrt
from support.bundles import snapshot
from support.commands import PLAIN, Cli, Start, install_line

from glam_deploy.bundle import Bundle, MadeFor, open_bundle
from glam_deploy.cli import export
from glam_deploy.errors import BackendUnavailable
from glam_deploy.gpu.engines.tensorrt import flavours, identity


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle of made-up graphs."""
    support_tensorrt.fill(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up TensorRT and a GPU."""
    support_tensorrt.install(monkeypatch)


def linked(bundle: Path, folder: Path) -> Path:
    """A copy that takes no space; files of a bundle are replaced, never written to."""
    shutil.copytree(bundle, folder, copy_function=lambda source, target: Path(target).hardlink_to(source))
    return folder


def words(text: str) -> str:
    return " ".join(text.split())


# what is built


def test_engines_come_into_the_bundle(cli: Cli, folder: Path, tensorrt: None) -> None:
    said = cli("build", "--bundle", folder, "--engine", "fp16")
    assert said.code == 0
    assert said.err.splitlines() == ["global engine", "local engine", "fusion engine", "CUDA kernels"]
    bundle = open_bundle(folder)
    bundle.check()
    assert [(e.precision, e.flavour) for e in bundle.engines] == [("fp16", "tensorrt")]
    assert f"{folder}: built; bundle {bundle.id[:12]}" in said.out
    for shown in (said.out, cli("inspect", "--bundle", folder).out):
        assert "TensorRT engines" in shown
        assert "NVIDIA L4" in shown
        assert "100.0% global" in words(shown)


def test_second_build_says_that_there_is_nothing_to_do(cli: Cli, folder: Path, tensorrt: None) -> None:
    cli("build", "--bundle", folder, "--engine", "fp32")
    before = snapshot(folder)
    said = cli("build", "--bundle", folder, "--engine", "fp32")
    assert (said.code, said.err) == (0, "")
    assert "there already, made from and for the same: nothing was built" in words(said.out)
    assert snapshot(folder) == before


def test_bundle_from_the_environment(cli: Cli, folder: Path, tensorrt: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLAM_BUNDLE", str(folder))
    assert cli("build", "--engine", "fp16").code == 0


def test_words_of_the_library_that_matter_are_shown(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    support_tensorrt.install(monkeypatch, warns="weights are subnormal")
    said = cli("build", "--bundle", folder, "--engine", "fp16")
    assert said.code == 0
    assert "local: weights are subnormal" in said.err
    assert "patch_locations" not in said.err


def test_engine_that_its_report_does_not_confirm(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    support_tensorrt.install(monkeypatch, release=10, tells="nothing")
    said = cli("build", "--bundle", folder, "--engine", "fp16")
    assert said.code == 0
    assert "local: the layer report of TensorRT 10.4.0.1 confirms fp16 for only 0.0% of the" in words(said.err)
    (report,) = folder.glob("engines/*/local.layers.txt")
    assert str(report) in said.err.replace("\n", "")
    monkeypatch.setenv("COLUMNS", "200")
    assert "not confirmed global, not confirmed local" in words(cli("inspect", "--bundle", folder).out)
    open_bundle(folder).check()


# what is refused


def test_bf16_for_gpus_that_have_none(cli: Cli, folder: Path) -> None:
    before = snapshot(folder)
    targets = ("--flavour", "tensorrt-rtx", "--compute-capability", "7.5", "--compute-capability", "8.9")
    said = cli("build", "--bundle", folder, "--engine", "bf16", *targets)
    assert said.code == 2
    assert "GPUs of compute capability 7.5 have no BF16, expected 8.0 or later; build --engine fp16" in words(said.err)
    assert snapshot(folder) == before


def test_both_libraries_installed(cli: Cli, folder: Path, tensorrt: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flavours, "find_spec", lambda name: object())
    said = cli("build", "--bundle", folder, "--engine", "fp16")
    assert said.code == 2
    assert "choose one with --flavour" in said.err
    assert cli("build", "--bundle", folder, "--engine", "fp16", "--flavour", "tensorrt").code == 0


def test_no_library_installed(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flavours, "find_spec", lambda name: None)
    said = cli("build", "--bundle", folder, "--engine", "fp16")
    assert said.code == 3
    assert install_line("tensorrt") in said.err
    assert install_line("tensorrt-rtx") in said.err


def no_gpu(index: int) -> None:
    raise BackendUnavailable("libcuda.so.1, NVIDIA's driver, is missing.")


def test_tensorrt_without_a_gpu(cli: Cli, folder: Path, tensorrt: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "Gpu", no_gpu)
    said = cli("build", "--bundle", folder, "--engine", "fp16")
    assert said.code == 3
    assert "libcuda.so.1" in said.err
    assert "--flavour tensorrt-rtx" in said.err


def test_gpu_that_is_not_there(cli: Cli, folder: Path, tensorrt: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "Gpu", no_gpu)
    said = cli("build", "--bundle", folder, "--engine", "fp16", "--flavour", "tensorrt-rtx", "--device", 1)
    assert (said.code, said.out) == (3, "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "Missing option '--engine'"),
        (("--engine", "int8"), 2, "'int8' is not one of"),
        (("--engine", "fp16", "--flavour", "onnx"), 2, "'onnx' is not one of"),
        (("--engine", "bf16"), 2, "export --weights ckpt.pt --precision bf16"),
        (("--engine", "fp16", "--compute-capability", "9.0"), 2, "builds only for this machine"),
        (("--engine", "fp16", "--bundle", "nothing"), 2, "nothing: is not a bundle"),
    ],
)
def test_wrong_usage(
    cli: Cli, folder: Path, tensorrt: None, arguments: tuple[str, ...], code: int, message: str
) -> None:
    before = snapshot(folder)
    said = cli("build", "--bundle", folder, *arguments)
    assert said.code == code
    assert message in words(said.err)
    assert snapshot(folder) == before


def test_compute_capability_that_tensorrt_rtx_does_not_list(cli: Cli, folder: Path) -> None:
    arguments = ("--engine", "fp16", "--flavour", "tensorrt-rtx", "--compute-capability", "9.0")
    said = cli("build", "--bundle", folder, *arguments)
    assert said.code == 2
    assert "cannot build for compute capability 9.0, expected one of 7.5, 8.0, 8.6, 8.9, 12.0" in said.err


def test_refused_graph_leaves_the_bundle(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    support_tensorrt.install(monkeypatch, fails="no such kernel")
    before = snapshot(folder)
    said = cli("build", "--bundle", folder, "--engine", "fp16")
    assert said.code == 4
    assert "global graph: TensorRT 11.4.0.1 cannot build it: no such kernel" in said.err
    assert snapshot(folder) == before


def test_wrong_precision_leaves_the_bundle(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    support_tensorrt.install(monkeypatch, computes_in="Float")
    before = snapshot(folder)
    said = cli("build", "--bundle", folder, "--engine", "fp16")
    assert said.code == 4
    assert "only 0.0% of the multiply-adds of its convolutions are fp16, expected 95%" in words(said.err)
    assert snapshot(folder) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stop_leaves_the_bundle(start: Start, folder: Path, number: int, code: int) -> None:
    before = snapshot(folder)
    made_up = "import pytest; from support import tensorrt; tensorrt.install(pytest.MonkeyPatch(), stop_after=1); "
    process = start("build", "--bundle", folder, "--engine", "fp16", code=made_up + PLAIN)
    assert process.stderr
    assert process.stderr.readline() == "global engine\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.split()) == (code, "", ["stopped"])
    assert snapshot(folder) == before


# the real TensorRT-RTX


def test_without_a_gpu_it_is_said_plainly(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "Gpu", no_gpu)
    said = cli("build", "--bundle", folder, "--engine", "fp16", "--flavour", "tensorrt-rtx")
    assert said.code == 4  # the graphs are made up
    told = words(said.out)
    assert "builds ahead of time, for compute capability 8.0, 8.6, 8.9, 12.0" in told
    assert (
        "the engines are not run, because no GPU can be used here. libcuda.so.1, NVIDIA's driver, is missing." in told
    )


@pytest.mark.network
def test_ctrl_c_stops_the_real_library(start: Start, golden_bundle: Path, tmp_path: Path) -> None:
    folder = linked(golden_bundle, tmp_path / "bundle")
    before = snapshot(folder)
    process = start("build", "--bundle", folder, "--engine", "fp32", "--flavour", "tensorrt-rtx", code=PLAIN)
    assert process.stderr
    assert process.stderr.readline() == "global engine\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.split()) == (130, ["stopped"])
    assert snapshot(folder) == before


@pytest.mark.slow
@pytest.mark.network
def test_real_engines_in_a_real_bundle(cli: Cli, golden_bundle: Path, tmp_path: Path) -> None:
    folder = linked(golden_bundle, tmp_path / "bundle")
    arguments = ("build", "--bundle", folder, "--engine", "fp16", "--flavour", "tensorrt-rtx")
    first = cli(*arguments, "--compute-capability", "8.9")
    assert first.code == 0
    bundle = open_bundle(folder)
    bundle.check()
    (entry,) = bundle.engines
    assert entry.made_for == MadeFor(compute_capabilities=("8.9",), gpu=None, driver=None)
    assert [entry.stages[s].confirmed_share for s in ("global", "local", "fusion")] == [1.0, 1.0, None]
    assert bundle.read(entry.kernels["sm_89"].file).startswith(b"\x7fELF")
    again = cli(*arguments, "--compute-capability", "8.9")
    assert (again.code, again.err) == (0, "")
    assert open_bundle(folder).id == bundle.id
    assert golden_bundle.joinpath("manifest.json").read_bytes() != (folder / "manifest.json").read_bytes()


# export --engine


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Exports cost nothing and are made of made-up graphs; filled with where they went."""
    made: list[Path] = []

    def make_bundles(weights: list[Path], out: Path, **options: Any) -> tuple[Bundle, ...]:
        made.append(out)
        support_tensorrt.fill(out)
        return (open_bundle(out),)

    monkeypatch.setattr(export, "make_bundles", make_bundles)
    return made


def test_export_and_build(cli: Cli, exported: list[Path], tensorrt: None, tmp_path: Path) -> None:
    out = tmp_path / "new"
    said = cli("export", "--weights", "w.pt", "--out", out, "--engine", "fp16", "--engine", "fp32", "--engine", "fp16")
    assert said.code == 0
    assert [entry.precision for entry in open_bundle(out).engines] == ["fp16", "fp32"]
    open_bundle(out).check()


def test_export_alone_builds_nothing(cli: Cli, exported: list[Path], tmp_path: Path) -> None:
    assert cli("export", "--weights", "w.pt", "--out", tmp_path / "new").code == 0
    assert open_bundle(tmp_path / "new").engines == ()


def test_failed_build_leaves_the_export_and_says_so(
    cli: Cli, exported: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    support_tensorrt.install(monkeypatch, fails="no such kernel")
    out = tmp_path / "new"
    said = cli("export", "--weights", "w.pt", "--out", out, "--engine", "fp16")
    assert said.code == 4
    open_bundle(out).check()
    told = words(said.err)
    assert f"{out} is complete, without fp16 engines" in told
    assert f"glam-deploy build --bundle {out} --engine fp16 --flavour tensorrt" in told
    assert "no such kernel" in told


def test_what_cannot_be_built_here_is_known_before_the_export(
    cli: Cli, exported: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flavours, "find_spec", lambda name: None)
    said = cli("export", "--weights", "w.pt", "--out", tmp_path / "new", "--engine", "fp16")
    assert said.code == 3
    assert exported == []

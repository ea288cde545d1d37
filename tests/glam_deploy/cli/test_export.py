"""`glam-deploy export`: what it takes, what it leaves and how it ends; graphs, reference and image cost nothing."""

import os
import pickle
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from support import engines as support_engines
from support.bundles import snapshot
from support.commands import PLAIN, Cli, Start, install_line, names, strict, without
from support.engines import fake_identity
from torch import Tensor

from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines.base import Engine, EngineOptions, OpenedEngines
from glam_deploy.engines.registry import OWNERS
from glam_deploy.networks import STAGES, NetworkSpec, Stage
from glam_deploy.records import Mammogram, View
from glam_export.steps import compare, write


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference and every engine are the fake one, and graphs are files of nothing."""
    mirrored = Mammogram(pixels=support_engines.small_view().pixels[:, ::-1], view=View.R_MLO)
    monkeypatch.setitem(OWNERS, "onnx", OWNERS["onnx"])
    support_engines.install()
    monkeypatch.setattr(write, "graph_modules", lambda network: dict.fromkeys(STAGES))
    monkeypatch.setattr(write, "in_precision", lambda module, precision: module)
    monkeypatch.setattr(compare, "rounded_engines", lambda bundle, precision: rounded_fakes(bundle.network))
    monkeypatch.setattr(write, "write_graph", lambda module, stage, path, **_: path.write_bytes(stage.encode()))
    monkeypatch.setattr(compare, "phantom_view", lambda seed, view: mirrored)
    monkeypatch.setattr(compare, "network_engines", lambda network: support_engines.fake_engines(network=network.spec))


def rounded_fakes(network: NetworkSpec) -> dict[Stage, Engine]:
    fakes = support_engines.fake_engines(network=network)
    return {stage: fakes[stage] for stage in STAGES[:2]}


# good weights


def test_bundle_that_the_other_commands_take(cli: Cli, quick: None, golden_checkpoint: Path, tmp_path: Path) -> None:
    said = cli("export", "--weights", golden_checkpoint, "--out", tmp_path / "bundle")
    assert said.code == 0
    assert names(tmp_path) == ["bundle"]
    assert "MISSED" not in said.out
    assert f"{tmp_path / 'bundle'}: bundle {open_bundle(tmp_path / 'bundle').id[:12]}, " in said.out
    assert "for research only and may not be passed on" in " ".join(said.out.split())
    manifest = strict(cli("inspect", "--json", "--bundle", tmp_path / "bundle").out)
    assert manifest["checkpoint"]["name"] == golden_checkpoint.name
    assert "checkpoint.safetensors" in manifest["files"]
    assert cli("verify", "--bundle", tmp_path / "bundle").code == 0


def test_options_reach_the_bundle(
    cli: Cli, quick: None, golden_state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(golden_state | {"teacher.a": torch.zeros(1), "step": torch.zeros(1)}, tmp_path / "w.pt")
    monkeypatch.chdir(tmp_path)
    keys = ("--ignore-key", "teacher.*", "--ignore-key", "step")
    arguments = ("--weights", "w.pt", "--patches", 3, "--no-checkpoint", "--precision", "bf16", *keys)
    said = cli("export", *arguments)
    assert said.code == 0
    assert "bf16 local.z_k" in said.out
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.manifest.network.precisions == ("fp32", "bf16")
    assert bundle.patches == 3
    assert bundle.manifest.checkpoint.ignored_keys == ("step", "teacher.a")
    assert "checkpoint.safetensors" not in bundle.files


def test_steps_are_told_and_an_earlier_bundle_is_replaced_as_a_whole(
    cli: Cli, quick: None, golden_checkpoint: Path, bundle: Path
) -> None:
    said = cli("export", "--no-checkpoint", "--weights", golden_checkpoint, "--out", bundle)
    assert names(bundle) == ["golden", "graphs", "manifest.json"]
    assert said.err.splitlines() == [
        f"reading {golden_checkpoint.name}",
        "running the reference on the golden case",
        "writing the graphs in fp32",
        "writing the graphs in fp32: global",
        "writing the graphs in fp32: local",
        "writing the graphs in fp32: fusion",
        "writing the graphs in fp16",
        "writing the graphs in fp16: global",
        "writing the graphs in fp16: local",
        "writing the manifest",
        "comparing every graph with the reference",
    ]


# 4: a graph that disagrees


def test_graph_that_disagrees_leaves_nothing(
    cli: Cli, quick: None, golden_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_wrong(opened: Bundle, options: EngineOptions) -> OpenedEngines:
        return OpenedEngines(engines=support_engines.fake_engines(wrong={"z_k": 0.5}), identity=fake_identity("onnx"))

    monkeypatch.setattr(support_engines, "open_engines", open_wrong)
    said = cli("export", "--weights", golden_checkpoint, "--out", tmp_path / "bundle")
    assert (said.code, said.out) == (4, "")
    assert "outputs disagree with the PyTorch reference; no bundle was written:" in said.err
    assert "local.z_k: differs by 0.5, limit 0.0001" in said.err
    assert names(tmp_path) == []


# 1: weights that cannot be used


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"PK\x03\x04 and no more", pickle.dumps({"a": 1}), pickle.dumps(os.getcwd)]
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_file_that_is_no_checkpoint(cli: Cli, tmp_path: Path, content: bytes, suffix: str) -> None:
    weights = tmp_path / f"w{suffix}"
    weights.write_bytes(content)
    said = cli("export", "--weights", weights, "--out", tmp_path / "bundle")
    assert (said.code, said.out) == (1, "")
    assert f"\nglam-deploy: {weights}: " in said.err
    assert "Traceback" not in said.err
    assert names(tmp_path) == [weights.name]


@pytest.mark.parametrize("place", ["nothing.pt", "."])
def test_weights_that_are_no_file(cli: Cli, tmp_path: Path, place: str) -> None:
    said = cli("export", "--weights", tmp_path / place, "--out", tmp_path / "bundle")
    assert (said.code, said.out) == (2, "")
    assert "Check the path given to --weights." in said.err
    assert names(tmp_path) == []


def test_checkpoint_of_another_network_than_asked_for(cli: Cli, tmp_path: Path) -> None:
    torch.save({"ds_net.first_conv.weight": torch.zeros(1)}, tmp_path / "weights.p")
    said = cli("export", "--weights", tmp_path / "weights.p", "--network", "CAM", "--out", tmp_path / "bundle")
    assert said.code == 1
    assert "holds a GMIC network, by its key ds_net.first_conv.weight; --network asks for CAM." in said.err
    assert names(tmp_path) == ["weights.p"]


def test_missing_and_unexpected_keys_are_named(cli: Cli, golden_state: dict[str, Tensor], tmp_path: Path) -> None:
    state = dict(golden_state)
    missing = next(key for key in state if key.endswith("weight"))
    state["surplus"] = state.pop(missing)
    torch.save(state, tmp_path / "w.pt")
    said = cli("export", "--weights", tmp_path / "w.pt", "--out", tmp_path / "bundle")
    assert (said.code, said.out) == (1, "")
    assert missing in said.err
    assert "surplus" in said.err
    assert names(tmp_path) == ["w.pt"]


# 2: wrong usage


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing option '--weights'"),
        (["--weights", "w.pt", "--patches", "0"], "0 is not in the range 1<=x<=6"),
        (["--weights", "w.pt", "--patches", "7"], "7 is not in the range 1<=x<=6"),
        (["--weights", "w.pt", "--precision", "int4"], "'int4' is not one of 'fp32', 'fp16', 'bf16', 'int8', 'auto'"),
        (["w.pt"], "Missing option '--weights'"),
    ],
)
def test_wrong_usage(cli: Cli, arguments: list[str], told: str) -> None:
    said = cli("export", *arguments)
    assert (said.code, said.out) == (2, "")
    assert told in said.err


@pytest.mark.parametrize(("out", "told"), [("file", "belongs to no bundle"), ("mine", "notes.txt"), (".", "current")])
def test_place_that_is_taken(
    cli: Cli,
    quick: None,
    golden_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    Path("file").write_text("mine")
    said = cli("export", "--weights", golden_checkpoint, "--out", out)
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert snapshot(tmp_path) == {"mine/notes.txt": b"mine", "file": b"mine"}


# 3, terminals


@pytest.mark.parametrize("package", ["torch", "onnx", "onnxscript", "safetensors"])
def test_missing_package(start: Start, tmp_path: Path, package: str) -> None:
    arguments = ("export", "--weights", tmp_path / "w.pt", "--out", tmp_path / "bundle")
    process = start(*arguments, code=without(package, code=PLAIN))
    out, err = process.communicate()
    assert (process.returncode, out) == (3, "")
    assert err == (
        f"glam-deploy: this command needs {package}, which this Python lacks. Install with: {install_line('export')}\n"
    )
    assert names(tmp_path) == []


def test_plain_install_is_told_all_that_it_lacks_at_once(start: Start, tmp_path: Path) -> None:
    code = without("torch", "onnx", "onnxscript", "safetensors", code=PLAIN)
    process = start("export", "--weights", tmp_path / "w.pt", code=code, stdout=subprocess.DEVNULL)
    assert "needs torch, onnx, onnxscript, safetensors, which" in process.communicate()[1]
    assert process.returncode == 3


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stop_leaves_the_bundle_that_stands(
    start: Start, golden_checkpoint: Path, bundle: Path, number: signal.Signals, status: int
) -> None:
    before, around = snapshot(bundle), names(bundle.parent)
    process = start("export", "--weights", golden_checkpoint, "--out", bundle, code=PLAIN)
    assert "writing the graphs in fp32: global\n" in process.stderr  # reads up to there
    process.send_signal(number)
    out, err = process.communicate()
    assert (process.returncode, out) == (status, "")
    assert "Traceback" not in err
    assert (snapshot(bundle), names(bundle.parent)) == (before, around)

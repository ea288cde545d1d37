"""`glam-deploy verify`: exit code 0 only where every byte and every number is what the manifest promises."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from support import engines as support_engines
from support.bundles import edit_manifest, facts, snapshot, write_manifest
from support.commands import Cli, Start, install_line, without
from support.engines import fake_identity

from glam_deploy.agreement.golden import GOLDEN_FILE
from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.networks import GLAM


def test_sound_bundle(cli: Cli, bundle: Path) -> None:
    before = snapshot(bundle)
    said = cli("verify", "--bundle", bundle)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"5 files of {bundle} are unchanged\nEngine onnx (block means) against the PyTorch")
    for output in ("patch_locations", "y_global", "y_scale", "y_local", "saliency_global", "saliency_patches"):
        assert f"│ {output} " in said.out
    assert said.out.count(" ok ") == 6
    assert snapshot(bundle) == before


def test_weights_of_the_fusion_head_that_are_not_those_of_the_graph(cli: Cli, bundle: Path) -> None:
    weights = {name: np.full(shape, 0.1234, np.float32) for name, shape in GLAM.fusion_weights.items()}
    np.savez(bundle / "graphs/fusion.npz", **weights)  # type: ignore[arg-type]
    described = facts()
    described["network"] |= {"aggregation": GLAM.aggregation}
    write_manifest(bundle, described)
    said = cli("verify", "--bundle", bundle)
    assert said.code == 4
    assert "mil_attn_V.weight" in said.err and "other values than in graphs/fusion.onnx" in said.err


def test_bundle_from_the_environment(cli: Cli, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLAM_BUNDLE", str(bundle))
    assert cli("verify").code == 0
    assert cli("verify", "--bundle", bundle.parent).code == 2


def test_golden_case_runs_with_its_own_number_of_patches(
    cli: Cli, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_manifest(bundle, lambda m: m["network"].update(patches=GLAM.patches.slots))
    assert cli("verify", "--bundle", bundle).code == 0
    edit_manifest(bundle, lambda m: m["golden"].update(patches=GLAM.patches.slots))
    said = cli("verify", "--bundle", bundle)
    assert said.code == 4
    assert "disagrees with the reference in patch_locations" in said.err


def test_number_of_threads_reaches_the_engine(cli: Cli, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[EngineOptions] = []
    real = support_engines.open_engines

    def record(opened: Bundle, options: EngineOptions) -> OpenedEngines:
        asked.append(options)
        return real(opened, options)

    monkeypatch.setattr(support_engines, "open_engines", record)
    assert cli("verify", "--bundle", bundle, "--threads", 3).code == 0
    assert asked == [EngineOptions(threads=3)]


# 4: integrity


@pytest.mark.parametrize("name", ["graphs/global.onnx", "graphs/fusion.onnx", "checkpoint.safetensors", GOLDEN_FILE])
def test_one_changed_byte(cli: Cli, bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    said = cli("verify", "--bundle", bundle)
    assert (said.code, said.out) == (4, "")
    assert f"{name} was changed: SHA-256 " in said.err
    assert "Copy the file again from the bundle's source" in said.err


def test_missing_file(cli: Cli, bundle: Path) -> None:
    (bundle / "graphs/local.onnx").unlink()
    said = cli("verify", "--bundle", bundle)
    assert (said.code, said.out) == (4, "")
    assert "graphs/local.onnx cannot be read" in said.err


def test_stray_file(cli: Cli, bundle: Path) -> None:
    (bundle / "notes.txt").write_text("x")
    said = cli("verify", "--bundle", bundle)
    assert (said.code, said.out) == (4, "")
    assert "notes.txt is not in the manifest" in said.err


def test_bundle_without_golden_case(cli: Cli, bundle: Path) -> None:
    (bundle / GOLDEN_FILE).unlink()
    write_manifest(bundle, facts())
    said = cli("verify", "--bundle", bundle)
    assert said.code == 4
    assert f"does not list {GOLDEN_FILE}" in said.err


# 4: parity


@pytest.mark.parametrize(
    ("wrong", "missed"),
    [
        ({"y_scale": 2e-4}, "y_global, y_scale"),
        ({"saliency_patches": -0.1}, "y_local, saliency_patches"),
        ({"y_local": 2e-4}, "y_local"),
    ],
)
def test_engine_that_disagrees(
    cli: Cli, bundle: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, float], missed: str
) -> None:
    def open_wrong(opened: Bundle, options: EngineOptions) -> OpenedEngines:
        engines = support_engines.fake_engines(wrong=wrong)
        return OpenedEngines(engines=engines, identity=fake_identity("onnx"))

    monkeypatch.setattr(support_engines, "open_engines", open_wrong)
    said = cli("verify", "--bundle", bundle)
    assert said.code == 4
    assert said.err.startswith(f"glam-deploy: engine 'onnx' disagrees with the reference in {missed} on this machine.")
    assert said.out.count("MISSED") == len(missed.split(", "))


def test_engine_within_the_limit_passes(cli: Cli, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_close(opened: Bundle, options: EngineOptions) -> OpenedEngines:
        engines = support_engines.fake_engines(wrong={"y_scale": 5e-5})
        return OpenedEngines(engines=engines, identity=fake_identity("onnx"))

    monkeypatch.setattr(support_engines, "open_engines", open_close)
    assert cli("verify", "--bundle", bundle).code == 0


def test_golden_case_that_does_not_hold(cli: Cli, bundle: Path) -> None:
    """Its hash is right, its numbers are not: a bundle put together by hand."""
    with np.load(bundle / GOLDEN_FILE) as case:
        arrays = dict(case)
    arrays["patch_locations"] = arrays["patch_locations"] + 16
    np.savez(bundle / GOLDEN_FILE, **arrays)
    write_manifest(bundle, facts())
    said = cli("verify", "--bundle", bundle)
    assert said.code == 4
    assert "disagrees with the reference in patch_locations" in said.err


def test_engine_that_fails_is_no_success(cli: Cli, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLAM_TEST_NAN", "1")
    said = cli("verify", "--bundle", bundle)
    assert said.code == 4
    assert said.err.startswith("glam-deploy: ")
    assert "NaN or infinite" in said.err


# 3, 130, terminals


@pytest.mark.parametrize(("engine", "extra"), [("torch", "export"), ("openvino", "openvino")])
def test_engine_that_this_machine_lacks(start: Start, bundle: Path, engine: str, extra: str) -> None:
    process = start("verify", "--engine", engine, "--bundle", bundle, code=without(engine))
    out, err = process.communicate()
    assert process.returncode == 3
    assert err.startswith(
        f"glam-deploy: engine '{engine}' needs {engine}, which this Python lacks. Install with: "
        f"{install_line(extra)}, or choose another engine. Engines that can run on this machine"
    )
    assert engine not in err.partition("Engines that can run on this machine")[2]
    assert "Engine" not in out


def test_ctrl_c_while_the_golden_case_runs(start: Start, bundle: Path) -> None:
    process = start("verify", "--bundle", bundle, env={"GLAM_TEST_WAIT": "1"})
    assert process.stderr.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, err.strip()) == (130, "stopped")
    assert "Engine" not in out


def test_narrow_terminal_loses_no_verdict(start: Start, bundle: Path) -> None:
    process = start("verify", "--bundle", bundle, env={"COLUMNS": "40"})
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert max(map(len, out.splitlines()[1:])) <= 40
    assert out.count(" ok ") == 6


def test_progress_shows_on_a_terminal_only(start: Start, bundle: Path) -> None:
    terminal, end = os.openpty()
    process = start("verify", "--bundle", bundle, stderr=end)
    os.close(end)
    out, _ = process.communicate()
    shown = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert "running the golden case" in shown
    assert "running" not in out


FORCED = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "CLICOLOR_FORCE": "1"}
"""What notebooks and CI systems set, whose streams are no terminal."""


@pytest.mark.parametrize("forced", [*({name: value} for name, value in FORCED.items()), FORCED])
def test_progress_shows_on_no_other_stream(start: Start, bundle: Path, forced: dict[str, str]) -> None:
    out, err = start("verify", "--bundle", bundle, env=forced).communicate()
    assert "running the golden case" not in err
    assert "\x1b" not in out + err


# the real network


@pytest.mark.slow
@pytest.mark.network
def test_real_bundle(cli: Cli, golden_bundle: Path) -> None:
    said = cli("verify", "--bundle", golden_bundle)
    assert (said.code, said.err) == (0, "")
    assert "MISSED" not in said.out

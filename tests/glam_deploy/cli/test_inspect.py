"""`glam-deploy inspect`: everything that a manifest says, for people and for machines."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from support.bundles import edit_manifest
from support.commands import Cli, Start, strict

from glam_deploy.bundle import MANIFEST


def test_facts_for_people(cli: Cli, bundle: Path) -> None:
    said = cli("inspect", "--bundle", bundle)
    assert (said.code, said.err) == (0, "")
    shown = " ".join(said.out.split())
    assert f"bundle {hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()}" in shown
    assert "GLAM, fp32, concatenation aggregation, no fusion layers" in shown
    assert "1 unless told otherwise, up to 6" in shown
    assert "made_up.pt, 3 parameters" in shown
    assert "ignored keys none" in shown
    assert "made up for tests" in shown
    digest = hashlib.sha256((bundle / "graphs/local.onnx").read_bytes()).hexdigest()
    assert f"graphs/local.onnx │ 0.0 │ {digest[:16]}" in shown
    assert "global.y_scale │ 1.00e-07 │ 2.00e-08 │ largest 1.0e-04 │ ok" in shown


def test_fusion_layers_ignored_keys_and_misses(cli: Cli, bundle: Path) -> None:
    def edit(manifest: dict[str, dict[str, object]]) -> None:
        manifest["network"] |= {"aggregation": "attention"}
        manifest["checkpoint"]["ignored_keys"] = ["teacher.*", "[bold]"]
        manifest["network"]["precisions"] = ["fp32", "bf16"]
        manifest["parity"] = [
            {"output": "a", "precision": "fp32", "max_abs": None, "mean_abs": None, "limit": 1e-4, "passed": False},
            {"output": "b", "precision": "bf16", "max_abs": 0.5, "mean_abs": 0.25, "limit": 0.125, "passed": False},
        ]

    edit_manifest(bundle, edit)
    shown = " ".join(cli("inspect", "--bundle", bundle).out.split())
    assert "attention aggregation, attention and fusion layers" in shown
    assert "ignored keys teacher.*, [bold]" in shown
    assert "GLAM, fp32, bf16, attention" in shown
    assert "│ a │ not finite │ not finite │ largest 1.0e-04 │ MISSED │" in shown
    assert "│ bf16 b │ 5.00e-01 │ 2.50e-01 │ mean 1.2e-01 │ MISSED │" in shown


def test_json_is_the_manifest_and_its_id(cli: Cli, bundle: Path) -> None:
    said = cli("inspect", "--json", "--bundle", bundle)
    text = (bundle / MANIFEST).read_bytes()
    assert (said.code, said.err) == (0, "")
    written = json.loads(text)
    facts = {"classes": ["benign", "malignant"], "input_shape": [2944, 1920], "max_patches": 6}
    network = written["network"] | facts
    assert strict(said.out) == {"id": hashlib.sha256(text).hexdigest(), **written, "network": network}
    assert said.out.isascii()


def test_bundle_from_the_environment(cli: Cli, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLAM_BUNDLE", str(bundle))
    assert cli("inspect").code == 0
    assert cli("inspect", "--bundle", bundle / "graphs").code == 2
    monkeypatch.setenv("GLAM_BUNDLE", str(bundle / "graphs"))
    assert cli("inspect").code == 2
    assert cli("inspect", "--bundle", bundle).code == 0


def test_default_bundle_is_the_one_here(cli: Cli, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle.parent)
    monkeypatch.delenv("GLAM_BUNDLE", raising=False)
    assert cli("inspect").code == 0


def test_narrow_terminal_loses_nothing(start: Start, bundle: Path) -> None:
    process = start("inspect", "--bundle", bundle, env={"COLUMNS": "40"})
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 40
    assert all(c.isprintable() or c == "\n" for c in out)
    assert hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest() in "".join(out.split())
    assert out.count("ok") == 1


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_closed_pipe_ends_without_a_trace(start: Start, bundle: Path, option: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start("inspect", *option, "--bundle", bundle, stdout=writing)
    os.close(writing)
    assert process.communicate()[1] == ""
    assert process.returncode == 1


# what is no bundle


@pytest.mark.parametrize("place", ["nothing", "in", "bundle/graphs", "bundle/manifest.json"])
def test_no_bundle_there(cli: Cli, bundle: Path, image: Path, place: str) -> None:
    said = cli("inspect", "--bundle", bundle.parent / place)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"glam-deploy: {bundle.parent / place}: is not a bundle")
    assert "glam-deploy export" in said.err


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema_version": 99}', b'{"schema_version": 1}']
)
def test_damaged_manifest(cli: Cli, bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    for option in ([], ["--json"]):
        said = cli("inspect", *option, "--bundle", bundle)
        assert (said.code, said.out) == (4, "")
        assert said.err.startswith("glam-deploy: ")


def test_missing_and_truncated_files_are_seen(cli: Cli, bundle: Path) -> None:
    (bundle / "graphs/global.onnx").write_bytes(b"short")
    assert cli("inspect", "--bundle", bundle).code == 4
    (bundle / "graphs/global.onnx").unlink()
    assert cli("inspect", "--bundle", bundle).code == 4


def test_control_characters_of_a_manifest_do_not_reach_the_terminal(cli: Cli, bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m.update(licence="free\x1b[2Jof charge"))
    edit_manifest(bundle, lambda m: m["checkpoint"].update(name="a\x1b]0;b\x07.pt"))
    shown = cli("inspect", "--bundle", bundle).out
    assert "\x1b" not in shown and "\x07" not in shown
    assert "free\\x1b[2Jof charge" in shown

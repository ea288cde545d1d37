"""Engines without a passed gate give no results, unless told; what a gate is bound to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import engines as support_engines
from support.bundles import edit_manifest, fill
from support.engines import fake_identity
from support.gate import IDENTITY, Candidate, gate

import glam_deploy
from glam_deploy.bundle import open_bundle
from glam_deploy.engines.admission import admit
from glam_deploy.engines.registry import OWNERS
from glam_deploy.errors import BundleError, Caller
from glam_deploy.precision import BF16, StageRecipes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def candidate(monkeypatch: pytest.MonkeyPatch) -> Candidate:
    """The engine "openvino" from now on."""
    return Candidate(monkeypatch)


def judged(folder: Path, *gates: dict[str, Any]) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(gates=list(gates)))


def test_an_engine_without_gate_is_refused_with_the_command(folder: Path, candidate: Candidate) -> None:
    with pytest.raises(BundleError) as caught:
        glam_deploy.load(folder, engine="openvino")
    assert "engine 'openvino' has no gate. It is not validated against the reference. Run: " in str(caught.value)
    assert f"glam-deploy gate --bundle {folder} --engine openvino; " in str(caught.value)
    assert str(caught.value).endswith("use it without a gate: pass ungated=True")
    remedy = "set `ungated = true` in the table [worker] of the configuration"
    assert caught.value.message_for(Caller.APPLIANCE).endswith(remedy)
    assert caught.value.exit_code == 4


def test_a_result_carries_the_gates_id(folder: Path, candidate: Candidate) -> None:
    judged(folder, gate(IDENTITY))
    result = glam_deploy.load(folder, engine="openvino")(support_engines.small_view())
    assert result.provenance["gate"] == gate(IDENTITY)["id"]


def test_ungated_is_said_in_the_results(folder: Path, candidate: Candidate) -> None:
    assert glam_deploy.load(folder, engine="openvino", ungated=True).provenance["gate"] == "ungated"
    judged(folder, gate(IDENTITY))
    assert glam_deploy.load(folder, engine="openvino", ungated=True).provenance["gate"] == gate(IDENTITY)["id"]


def test_another_library_needs_another_gate(folder: Path, candidate: Candidate) -> None:
    judged(folder, gate(IDENTITY))
    candidate.library = "openvino of tomorrow"
    with pytest.raises(BundleError, match="has an outdated gate: its graphs, engine files or library have changed"):
        glam_deploy.load(folder, engine="openvino")


def test_the_newest_verdict_counts(folder: Path, candidate: Candidate) -> None:
    failed, passed = gate(IDENTITY, passed=False, failures=["decisions flipped: 1, limit 0"]), gate(IDENTITY)
    judged(folder, passed, failed)
    with pytest.raises(BundleError, match=rf"failed its gate {failed['id']} \(decisions flipped: 1, limit 0\)"):
        glam_deploy.load(folder, engine="openvino")
    judged(folder, failed, passed)
    assert glam_deploy.load(folder, engine="openvino").provenance["gate"] == passed["id"]


def test_a_gate_written_by_hand_admits_nothing(folder: Path, candidate: Candidate) -> None:
    forged = {"id": "forged", "passed": True, "failures": ["decisions flipped: 9, limit 0"], "figures": {}, "images": 0}
    judged(folder, gate(IDENTITY) | forged)
    refusal = r"has a gate forged that contradicts itself \(its content has the id .*\)\. It is not validated .* Run: "
    with pytest.raises(BundleError, match=refusal + "glam-deploy gate"):
        glam_deploy.load(folder, engine="openvino")
    assert glam_deploy.load(folder, engine="openvino", ungated=True).provenance["gate"] == "ungated"


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_the_reference_needs_no_gate(folder: Path, name: str) -> None:
    assert admit(open_bundle(folder), name, fake_identity(name), ungated=False) == "reference"
    with pytest.raises(BundleError, match="has no gate"):
        admit(open_bundle(folder), name, fake_identity(name, "fp16"), ungated=False)


def test_the_command_names_the_flavour(folder: Path) -> None:
    with pytest.raises(BundleError, match=f"gate --bundle {folder} --engine fp16 --flavour tensorrt-rtx; "):
        admit(open_bundle(folder), "fp16", fake_identity("fp16", "fp16", flavour="tensorrt-rtx"), ungated=False)


def test_load_of_the_reference(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OWNERS, "onnx", OWNERS["onnx"])
    support_engines.install()
    assert glam_deploy.load(folder, engine="onnx").provenance["gate"] == "reference"


def test_what_makes_another_engine() -> None:
    digests = [
        replace(IDENTITY, **other).digest
        for other in (
            {},
            {"name": "onnx-cuda"},
            {"library": "openvino 1"},
            {"precision": StageRecipes(recipes=BF16)},
            {"flavour": "tensorrt"},
            {"sha256": {"global": "11", "local": "23", "fusion": "33"}},
        )
    ]
    assert len(set(digests)) == len(digests)
    assert replace(IDENTITY, device="another GPU of the kind").digest == digests[0]
    assert replace(IDENTITY, sha256=dict(reversed(IDENTITY.sha256.items()))).digest == digests[0]


def test_a_verdict_of_another_form_is_no_bundle(folder: Path) -> None:
    judged(folder, gate(IDENTITY, passed="yes"))
    with pytest.raises(BundleError, match=r"gates\[0\]\.passed is a string, expected true or false"):
        open_bundle(folder)

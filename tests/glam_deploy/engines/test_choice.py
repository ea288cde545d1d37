"""What "auto" takes, and what it says of the others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import engines as support_engines
from support.bundles import edit_manifest, fill
from support.gate import Candidate, gate, with_id

import glam_deploy
from glam_deploy.engines.registry import OWNERS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(OWNERS, "onnx", OWNERS["onnx"])
    support_engines.install()
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> Candidate:
    return Candidate(monkeypatch, "openvino")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Candidate:
    return Candidate(monkeypatch, "bf16")


def auto(folder: Path, *gates: dict[str, Any], **options: Any) -> tuple[str, str, str]:
    """Name, gate and reason."""
    edit_manifest(folder, lambda manifest: manifest.update(gates=list(gates)))
    provenance = glam_deploy.load(folder, **options).provenance
    return provenance["engine"]["name"], provenance["gate"], provenance["auto"]


def test_without_gates_it_is_onnx_and_there_is_nothing_to_say(folder: Path) -> None:
    provenance = glam_deploy.load(folder).provenance
    assert (provenance["engine"]["name"], provenance["gate"]) == ("onnx", "reference")
    assert "auto" not in provenance


def test_the_fastest_with_a_passed_gate(folder: Path, swift: Candidate, slow: Candidate) -> None:
    gates = gate(slow.identity, latency_ms=300.0), gate(swift.identity, latency_ms=20.0)
    name, passed, reason = auto(folder, *gates)
    assert (name, passed) == ("openvino", gates[1]["id"])
    assert reason == "auto selected openvino: 20 ms per image, the fastest engine with a passed gate on this machine"
    assert auto(folder, *reversed(gates))[0] == "openvino"


def test_onnx_takes_part_where_it_was_timed(folder: Path, slow: Candidate) -> None:
    onnx = support_engines.fake_identity("onnx")
    name, passed, _ = auto(folder, gate(slow.identity, latency_ms=300.0), gate(onnx, latency_ms=30.0))
    assert (name, passed) == ("onnx", "reference")


def test_a_failed_gate_is_none(folder: Path, swift: Candidate) -> None:
    failed = gate(swift.identity, passed=False, failures=["worse"])
    why = "auto selected onnx: no engine has a passed gate that was timed on a machine like this"
    assert auto(folder, failed)[::2] == ("onnx", why)
    assert auto(folder, gate(swift.identity), failed)[::2] == ("onnx", why)


def test_times_of_this_machine_and_the_newest_verdict(folder: Path, swift: Candidate) -> None:
    here = gate(swift.identity)
    there = gate(swift.identity, latency_ms=1.0, machine=here["machine"] | {"cores": 999})
    name, passed, reason = auto(folder, here, there)
    assert (name, passed) == ("openvino", there["id"])
    assert "auto selected openvino: 100 ms per image" in reason


@pytest.mark.parametrize("changed", [{"processor": "another"}, {"cores": 999}])
def test_times_of_another_machine_say_nothing(folder: Path, swift: Candidate, changed: dict[str, Any]) -> None:
    there = gate(swift.identity)
    name, _, reason = auto(folder, with_id(there | {"machine": there["machine"] | changed}))
    assert name == "onnx"
    assert reason.endswith("skipped: openvino was timed on another kind of machine")


def test_an_engine_that_is_another_one_by_now(folder: Path, swift: Candidate, slow: Candidate) -> None:
    gates = gate(swift.identity, latency_ms=20.0), gate(slow.identity, latency_ms=300.0)
    swift.library = "another"
    name, _, reason = auto(folder, *gates)
    assert name == "bf16"
    assert reason.endswith("machine; skipped: openvino has changed since its gate")


def test_an_engine_that_this_machine_lacks(folder: Path, swift: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = gate(swift.identity)
    monkeypatch.setitem(OWNERS, "openvino", replace(OWNERS["openvino"], packages=("no_such_package",)))
    name, _, reason = auto(folder, entry)
    assert name == "onnx"
    assert reason.endswith(
        "openvino cannot be opened (engine 'openvino' needs no_such_package, which this Python lacks)"
    )
    of_tomorrow = with_id(entry | {"engine": "of-tomorrow"})
    assert auto(folder, of_tomorrow)[2].endswith("of-tomorrow is unknown to this release")


def test_an_engine_that_compiles_nothing_needs_no_folder_for_it(folder: Path, swift: Candidate) -> None:
    assert "cache" not in OWNERS["openvino"].options
    assert auto(folder, gate(swift.identity), cache="compiled")[0] == "openvino"
    assert auto(folder, gate(swift.identity, passed=False, failures=["worse"]), cache="compiled")[0] == "onnx"


def test_a_gate_written_by_hand_is_passed_over(folder: Path, swift: Candidate) -> None:
    name, _, reason = auto(folder, gate(swift.identity) | {"images": 4000})
    assert name == "onnx"
    assert "skipped: openvino has a gate that contradicts itself (its content has the id " in reason


def test_options_that_it_cannot_honour(folder: Path, swift: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = gate(swift.identity)
    assert auto(folder, entry, threads=2)[0] == "openvino"
    monkeypatch.setitem(OWNERS, "openvino", replace(OWNERS["openvino"], options=()))
    name, _, reason = auto(folder, entry, threads=2)
    assert name == "onnx"
    assert reason.endswith("skipped: openvino does not support the options")


# times side by side


def test_times_beside_onnx_decide_and_not_times_of_different_hours(
    folder: Path, swift: Candidate, slow: Candidate
) -> None:
    """The second gate ran on a machine that was busy: all took three times as long."""
    quiet = gate(slow.identity, latency_ms=80.0, times_onnx=0.8)
    busy = gate(swift.identity, latency_ms=150.0, times_onnx=0.5)
    name, _, reason = auto(folder, quiet, busy)
    assert name == "openvino"
    comparison = "0.50 times the time of onnx, the fastest engine with a passed gate on this machine"
    assert reason == f"auto selected openvino: 150 ms per image, {comparison}"


def test_an_engine_that_is_no_faster_than_onnx_beside_it_is_passed_over(folder: Path, swift: Candidate) -> None:
    name, passed, reason = auto(folder, gate(swift.identity, latency_ms=1.0, times_onnx=1.25))
    assert (name, passed) == ("onnx", "reference")
    assert reason.endswith("skipped: openvino took 1.25 times the time of onnx")


def test_verdicts_without_such_times_come_last(folder: Path, swift: Candidate, slow: Candidate) -> None:
    old, new = gate(swift.identity, latency_ms=1.0), gate(slow.identity, latency_ms=300.0, times_onnx=0.9)
    assert auto(folder, old, new)[0] == "bf16"
    assert auto(folder, old, new | {"times_onnx": 1.1})[0] == "openvino"

"""What a bundle says of the engines of a bench."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bundles import edit_manifest, fill
from support.engines import fake_identity
from support.gate import IDENTITY, gate
from support.search import point

from glam_bench import schema
from glam_bench.ladder.live import unavailable
from glam_bench.ladder.rungs import RungPlan
from glam_bench.ladder.verdicts import frontier, with_gates
from glam_deploy.bundle import open_bundle
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.json_records import to_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path)
    return tmp_path


def told(folder: Path, engine: EngineIdentity | None, *, opener: str = "engine") -> Any:
    plan = RungPlan(key="a", name="A", opener=opener)
    (rung,) = with_gates(
        [{**unavailable(plan, "no reason"), "engine": engine and to_json(engine)}], [plan], open_bundle(folder)
    )  # type: ignore[typeddict-item]
    assert not list(schema.faults(rung, schema.Rung))
    return rung["gate"]


def test_the_newest_verdict_of_the_engine_as_it_ran(folder: Path) -> None:
    verdicts = [gate(IDENTITY), gate(IDENTITY, passed=False, failures=["a lesion was lost"])]
    edit_manifest(folder, lambda manifest: manifest.update(gates=verdicts))
    assert told(folder, IDENTITY) == {"verdict": "failed", "id": verdicts[1]["id"], "failures": ["a lesion was lost"]}
    assert told(folder, replace(IDENTITY, library="another")) == {"verdict": "none", "id": None, "failures": []}
    edit_manifest(folder, lambda manifest: manifest.update(gates=verdicts[:1]))
    assert told(folder, IDENTITY) == {"verdict": "passed", "id": verdicts[0]["id"], "failures": []}


def test_the_reference_needs_none(folder: Path) -> None:
    assert told(folder, fake_identity("torch"))["verdict"] == "reference"
    assert told(folder, fake_identity("onnx", "fp16"))["verdict"] == "none"


def test_what_is_no_engine_of_ours_has_no_gate(folder: Path) -> None:
    assert told(folder, fake_identity("torch"), opener="torch") is None
    assert told(folder, None) is None


def test_a_search_as_the_export_writes_it(folder: Path) -> None:
    assert frontier(open_bundle(folder)) is None
    written = to_json(point("int8+winograd", taken=True))
    edit_manifest(folder, lambda manifest: manifest.update(frontier=[written]))
    assert frontier(open_bundle(folder)) == [written]
    edit_manifest(
        folder, lambda manifest: manifest.update(schema_version=1, frontier=[{"stage": "local", "precision": "int8"}])
    )
    assert frontier(open_bundle(folder)) is None

"""A stored verdict follows from the numbers beside it, or it counts for nothing."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.bundles import edit_manifest, fill
from support.gate import IDENTITY, gate, with_id

from glam_deploy.bundle import GateEntry, open_bundle
from glam_deploy.bundle.gate_rule import contradiction, require_consistent_gates
from glam_deploy.errors import BundleError
from glam_deploy.json_records import from_json

RECORDED = json.loads((Path(__file__).parent / "manifest_schema_1.json").read_bytes())["gates"]

Entry = dict[str, Any]


def fault(entry: Entry) -> str:
    return contradiction(from_json(GateEntry, entry))


@pytest.mark.parametrize("number", range(len(RECORDED)))
def test_verdicts_of_an_earlier_release_follow(number: int) -> None:
    """Written by that release, with the id that it computed."""
    assert fault(RECORDED[number]) == ""


def test_a_passed_and_a_failed_verdict_follow() -> None:
    assert fault(gate(IDENTITY)) == ""
    assert fault(gate(IDENTITY, times_onnx=0.5)) == ""
    assert fault(gate(IDENTITY, passed=False, failures=["worse"], images=0)) == ""


def point(entry: Entry) -> Entry:
    """The first point of the first curve."""
    found: Entry = entry["figures"]["dice"]["global"]["benign"][0]
    return found


CONTRADICTIONS: dict[str, tuple[Callable[[Entry], object], str]] = {
    "failures": (lambda e: e.update(failures=["worse"]), "it has passed, with failures: worse"),
    "no reason": (lambda e: e.update(passed=False), "it failed for no reason"),
    "no metrics": (
        lambda e: e.update(figures={}, images=0),
        "its metrics are not those of this release",
    ),
    "no images": (lambda e: (e.update(images=0), e["figures"].update(images=0)), "it has 0 images"),
    "more images": (lambda e: e.update(images=400), "it has 400 images and metrics of 4"),
    "median": (lambda e: point(e).update(median=0.98, worst=0.96), "Dice of the global benign map .* median 0.98"),
    "worst": (lambda e: point(e).update(worst=0.5), "Dice of the global benign map at 0.5: worst 0.5"),
    "worst above median": (lambda e: point(e).update(worst=1.0, median=0.995), "impossible: median 0.995, worst 1.0"),
    "Dice above 1": (lambda e: point(e).update(median=1.5), "impossible"),
    "Dice of no image": (lambda e: point(e).update(images=0), "impossible"),
    "Dice of more images": (lambda e: point(e).update(images=5), "impossible"),
    "lost": (lambda e: e["figures"].update(lost_or_new=1), "lesions lost or new: 1, limit 0"),
    "lost in a state only": (
        lambda e: e["figures"]["states"].update(lost=2),
        "0 lesions are lost or new, and 2 st",
    ),
    "flips": (lambda e: e["figures"].update(flips=1), "decisions flipped: 1, limit 0"),
    "negative flips": (lambda e: e["figures"].update(flips=-1), "lesions are lost or new"),
    "patches": (lambda e: e["figures"]["patches"].update(agreement=0.5), "patches where the reference"),
    "patches that do not add up": (lambda e: e["figures"]["patches"].update(same=1), "does not add up"),
    "nothing judged": (lambda e: e["figures"].update(judged=0), "nothing was judged"),
    "judged too often": (lambda e: e["figures"].update(judged=99), "more often than its curves say"),
    "no curves": (lambda e: e["figures"].update(dice={}), "more often than its curves say"),
    "faster": (lambda e: e.update(latency_ms=1.0), "its times differ"),
    "faster than onnx": (lambda e: e.update(times_onnx=0.1), "its times differ"),
    "another form": (lambda e: e["figures"].update(flips="none"), "flips is a string"),
    "limits": (lambda e: e.update(limits={"dice": 0}), "dice is unknown"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_named_although_the_id_fits(name: str) -> None:
    edit, reason = CONTRADICTIONS[name]
    entry = json.loads(json.dumps(gate(IDENTITY)))
    edit(entry)
    assert re.search(reason, fault(with_id(entry))), fault(with_id(entry))


@pytest.mark.parametrize("key", sorted(gate(IDENTITY).keys() - {"id", "machine", "figures", "limits", "failures"}))
def test_every_field_counts_for_the_id(key: str) -> None:
    entry = gate(IDENTITY)
    changed = {str: "another", int: 7, float: 7.5, bool: False}[type(entry[key])]
    assert fault(entry | {key: changed}).startswith("its content has the id ")


def test_verify_names_the_gate(tmp_path: Path) -> None:
    fill(tmp_path)
    edit_manifest(tmp_path, lambda manifest: manifest.update(gates=[gate(IDENTITY), gate(IDENTITY) | {"id": "forged"}]))
    with pytest.raises(BundleError, match="the gate forged of the engine openvino contradicts itself"):
        require_consistent_gates(open_bundle(tmp_path))

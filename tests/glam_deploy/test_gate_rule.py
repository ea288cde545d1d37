"""A stored verdict follows from the numbers beside it, or it counts for nothing."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.bundles import edit_manifest, fill
from support.gate import IDENTITY, figures, gate, with_id

from glam_deploy.bundle import GateEntry, open_bundle
from glam_deploy.bundle.gate_rule import Limits, Metrics, contradiction, missed_limits, require_consistent_gates
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
    "lost": (
        lambda e: (e["figures"].update(lost_or_new=1), e["figures"]["states"].update(lost=1)),
        "lesions lost or new: 1, limit 0",
    ),
    "lost in a state only": (
        lambda e: e["figures"]["states"].update(lost=2),
        "0 lesions are lost or new, and 2 st",
    ),
    "flips": (lambda e: e["figures"].update(flips=1), "decisions flipped: 1, limit 0"),
    "negative flips": (lambda e: e["figures"].update(flips=-1), "lesions are lost or new"),
    "patches": (lambda e: e["figures"]["patches"].update(same=1, agreement=0.5), "patches where the reference"),
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


AT_THE_LIMITS = Limits(dice_median=0.75, dice_worst=0.5, patch_agreement=0.75, flips=2, lost=3, operating_point=0.5)
"""Limits that binary numbers hold exactly."""


def curve(*points: tuple[float, int, float | None, float | None]) -> list[Entry]:
    """Points of (threshold, images, median, worst)."""
    return [
        {"threshold": at, "images": images, "median": median, "interval": None, "worst": worst}
        for at, images, median, worst in points
    ]


def missed(**changed: object) -> list[str]:
    """What numbers at the limits miss with some of them `changed`."""
    at_the_limits = figures() | {
        "dice": {"global": {"benign": curve((0.5, 4, 0.75, 0.5))}},
        "judged": 4,
        "lost_or_new": 3,
        "flips": 2,
        "patches": figures()["patches"] | {"agreement": 0.75},
    }
    return list(missed_limits(from_json(Metrics, at_the_limits | changed), AT_THE_LIMITS))


def test_metrics_are_stored_as_they_are() -> None:
    stored = json.dumps(from_json(Metrics, figures()).to_json())
    assert json.loads(stored) == figures()


def test_numbers_at_the_limits_keep_them() -> None:
    assert missed() == []
    assert missed(patches=None) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"lost_or_new": 4}, "lesions lost or new: 4, limit 3"),
        ({"flips": 3}, "decisions flipped: 3, limit 2"),
        (
            {"patches": figures()["patches"] | {"agreement": 0.734375}},
            "patches where the reference could have chosen them: 73.4%, limit 75.0%",
        ),
        (
            {"dice": {"fused": {"malignant": curve((0.3, 4, 0.8, 0.5), (0.5, 4, 0.625, 0.5), (0.7, 4, 0.7, 0.6))}}},
            "Dice of the fused malignant map at 0.5: median 0.6250, limit 0.75",
        ),
        (
            {"dice": {"fused": {"malignant": curve((0.3, 0, None, None), (0.5, 4, 0.9, 0.5), (0.7, 1, 0.9, 0.25))}}},
            "Dice of the fused malignant map at 0.7: worst 0.2500, limit 0.5",
        ),
    ],
)
def test_each_limit_that_is_missed_is_one_sentence(changed: Entry, sentence: str) -> None:
    assert missed(**changed) == [sentence]


def test_maps_without_lesions_miss_no_limit_of_dice() -> None:
    assert missed(dice={"global": {"benign": curve((0.5, 0, None, None))}, "fused": {"benign": []}}) == []


def test_all_limits_that_are_missed_are_named() -> None:
    low = {"global": {"benign": curve((0.5, 4, 0.7, 0.4))}, "fused": {"malignant": curve((0.5, 4, 0.6, 0.3))}}
    assert [sentence.split(":")[0] for sentence in missed(dice=low, lost_or_new=9, flips=9)] == [
        "Dice of the global benign map at 0.5",
        "Dice of the global benign map at 0.5",
        "Dice of the fused malignant map at 0.5",
        "Dice of the fused malignant map at 0.5",
        "lesions lost or new",
        "decisions flipped",
    ]


def test_a_lesion_that_is_lost_counts_as_judged() -> None:
    assert missed(judged=0) == []
    (sentence,) = missed(judged=0, lost_or_new=0)
    assert "nothing was judged" in sentence


def inconsistency(**changed: object) -> str:
    """Why a stored verdict "passed" is refused after some of its numbers were changed; its limits stay."""
    limits = {"dice_median": 0, "dice_worst": 0, "patch_agreement": 0, "flips": 99, "lost": 99}
    metrics = figures() | {"latency_ms": 100.0, "beside_onnx": None} | changed
    return fault(gate(IDENTITY, figures=metrics, limits=limits))


PATCHES = figures()["patches"]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"judged": 7},
        {"patches": None},
        {"patches": PATCHES | {"same": 1, "tied": 0, "agreement": 0.25}},
        {"patches": PATCHES | {"patches": 1, "same": 0, "tied": 1}},
        {"patches": PATCHES | {"same": 0, "tied": 0, "agreement": 0}},
        {"lost_or_new": 1, "states": {"lost": 1, "new": 0, "almost empty": 0}},
        {"lost_or_new": 2, "states": {"lost": 0, "new": 3, "almost empty": 0}},
        {"lost_or_new": 1, "states": {"new": 1}},
        {"lost_or_new": 1, "states": {"lost": 1}},
        {"states": {}},
        {"flips": 1},
        {"dice": {"global": {"benign": curve((0.5, 4, 1, 1), (0.7, 4, 0, 0), (0.9, 1, 0.5, 0.5), (1, 0, None, None))}}},
    ],
)
def test_numbers_that_can_all_be_true(changed: Entry) -> None:
    assert inconsistency(**changed) == ""


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"judged": 9}, "Dice was judged 9 times, more often than its curves say"),
        ({"patches": PATCHES | {"patches": 0, "same": 0, "tied": 0}}, "of 0 patches 100.0% agree"),
        ({"patches": PATCHES | {"same": -1, "tied": 5}}, "does not add up"),
        ({"patches": PATCHES | {"same": 5, "tied": -1}}, "does not add up"),
        ({"patches": PATCHES | {"tied": 0}}, "of 4 patches 100.0% agree, which does not add up"),
        ({"lost_or_new": 1, "states": {"almost empty": 2}}, "1 lesions are lost or new, and 0 states"),
        ({"states": {"new": 1}}, "0 lesions are lost or new, and 1 states"),
        ({"lost_or_new": 2, "states": {"lost": 2, "new": -1}}, "2 lesions are lost or new, and 1 states"),
        ({"states": {"almost empty": -1}}, "0 lesions are lost or new, and 0 states"),
        ({"lost_or_new": -1}, "-1 lesions are lost or new"),
        ({"flips": -1}, "lesions are lost or new"),
        ({"dice": {"global": {"benign": curve((0.5, 4, 1, 1), (0.7, 8, 1, 1))}}}, "the Dice at 0.7 is impossible"),
        ({"dice": {"global": {"benign": curve((0.5, 4, 1, -0.25))}}}, "the Dice at 0.5 is impossible"),
        ({"dice": {"global": {"benign": curve((0.5, 4, 1, None))}}}, "impossible: median 1.0, worst None"),
        ({"dice": {"global": {"benign": curve((0.5, 4, None, 1))}}}, "impossible: median None, worst 1.0"),
        ({"dice": {"global": {"benign": curve((0.5, 0, None, 0))}}}, "impossible: median None, worst 0.0"),
        ({"dice": {"global": {"benign": curve((0.5, 0, 0, None))}}}, "impossible: median 0.0, worst None"),
        ({"dice": {"global": {"benign": curve((0.5, 4, None, None))}}}, "impossible: median None, worst None"),
        ({"beside_onnx": {"times": 2.0}}, "its times differ from those of its metrics"),
        ({"latency_ms": None}, "its times differ from those of its metrics"),
    ],
)
def test_numbers_that_cannot_all_be_true(changed: Entry, reason: str) -> None:
    assert reason in inconsistency(**changed)


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

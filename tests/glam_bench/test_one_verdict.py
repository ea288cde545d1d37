"""The gate and the GPU check on the same pairs of results: one verdict, for the same reasons."""

import json
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.engines import fake_engines, fake_identity, small_view

from glam_bench.gpu.bars import judge as judge_bars
from glam_bench.parity import case, summary
from glam_bench.record import Record
from glam_deploy.agreement.answers import answer
from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.verdict import Verdict, judge
from glam_deploy.engines.base import OpenedEngines
from glam_deploy.gate.trial import examine
from glam_deploy.networks import GLAM, GLAM_CONCATENATION
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result

HALF = "fp16@tensorrt-rtx"


class Local:
    """A local stage that sees no lesion in any patch."""

    network = GLAM

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"saliency_patches": np.zeros((len(inputs["patches"]), 2, 128, 128), np.float32)}


def lesion(value: float = 0.65, *, rows: int = 30) -> np.ndarray:
    """A benign lesion of 30 x 30 cells; every window of 32 x 32 cells that holds all of it is tied."""
    saliency = np.zeros((2, 184, 120), np.float32)
    saliency[0, 30 : 30 + rows, 10:40] = value
    return saliency


def scores(benign: float) -> np.ndarray:
    return np.array([benign, 0.2], np.float32)


PLACE = np.array([[29 * 16, 9 * 16]])


@pytest.fixture(scope="module")
def reference() -> Result:
    """One lesion in the global map, a patch over it, and scores on both sides of the operating point."""
    opened = OpenedEngines(engines=fake_engines(), identity=fake_identity())
    result = Pipeline(opened, patches=1, provenance={})(small_view())
    empty = np.zeros_like(result.saliency_patches)
    return replace(
        result, saliency_global=lesion(), saliency_patches=empty, patch_locations=PLACE, y_global=scores(0.6)
    )


def gate_verdict(reference: Result, candidate: Result) -> Verdict:
    pair: Any = SimpleNamespace(
        network=GLAM_CONCATENATION, reference=lambda _: reference, candidate=lambda _: candidate, local=Local()
    )
    return judge([examine(pair, small_view(), None, Limits()).trial.agreement], Limits())


def checked(reference: Result, candidate: Result) -> dict[str, Any]:
    """What the GPU check records for one K."""
    pipeline: Any = lambda _: candidate  # noqa: E731
    local: Any = Local()
    return summary([case(pipeline, local, small_view(), answer(reference), GLAM_CONCATENATION)])


PAIRS = {
    "equal": ({}, True),
    "patch one cell away, tied": ({"patch_locations": PLACE + np.array([16, 0])}, True),
    "patch elsewhere": ({"patch_locations": PLACE + np.array([160, 0])}, False),
    "score off, same decision": ({"y_global": scores(0.9)}, True),
    "score off, decision flipped": ({"y_global": scores(0.49)}, False),
    "classes exchanged": ({"saliency_global": lesion()[::-1]}, False),
    "lesion lost at one threshold": ({"saliency_global": lesion(0.55)}, False),
    "lesion a row smaller, Dice 0.983": ({"saliency_global": lesion(rows=29)}, False),
    "lesion lost": ({"saliency_global": lesion() * 0}, False),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_gate_and_the_gpu_check_give_one_verdict(reference: Result, record: Record, name: str) -> None:
    changed, passes = PAIRS[name]
    candidate = replace(reference, **changed)
    verdict, found = gate_verdict(reference, candidate), checked(reference, candidate)
    assert verdict.passed is passes
    assert found["verdict"] == verdict.to_json()
    record.results(f"parity:{HALF}").update({"k=1": json.loads(json.dumps(found))})
    bars = [bar.held for bar in judge_bars(record, ("engines",)) if bar.name == "agreement with the reference"]
    assert bars == [passes]


def test_no_lesion_proves_nothing_to_either(reference: Result) -> None:
    empty = replace(reference, saliency_global=lesion() * 0)
    assert not gate_verdict(empty, empty).passed
    assert not checked(empty, empty)["verdict"]["passed"]

"""The engine that a bench names first is one that `run` would take."""

from pathlib import Path

import pytest

from glam_bench import schema
from glam_bench.ladder import verdicts as headline
from glam_bench.schema import Gate, Rung

SAMPLE = Path(__file__).with_name("sample.json")


@pytest.fixture
def ladder() -> list[Rung]:
    return schema.read(SAMPLE)["ladder"]


def judged(ladder: list[Rung], **verdicts: str) -> list[Rung]:
    """The ladder with these verdicts; of what is not named, as it is."""
    gates = {key.replace("_", "-"): Gate(verdict=verdict, id=None, failures=[]) for key, verdict in verdicts.items()}
    return [{**rung, "gate": gates.get(rung["key"], rung.get("gate"))} for rung in ladder]


@pytest.mark.parametrize(
    ("verdicts", "first", "faster"),
    [
        ({}, "onnx", ["openvino-int8"]),
        ({"openvino_int8": "none"}, "onnx", ["openvino-int8"]),
        ({"openvino_int8": "passed"}, "openvino-int8", []),
        ({"onnx": "none"}, None, ["openvino-int8", "onnx"]),
        ({"onnx": "none", "openvino_int8": "passed"}, "openvino-int8", []),
    ],
)
def test_the_fastest_that_may_give_results(
    ladder: list[Rung], verdicts: dict[str, str], first: str | None, faster: list[str]
) -> None:
    """What is no engine of this package, such as OpenVINO as converted, is never named, however fast."""
    rungs = judged(ladder, **verdicts)
    found = headline.fastest(rungs)
    assert (found and found["key"]) == first
    assert [rung["key"] for rung in headline.faster_without_gate(rungs, found)] == faster


def test_nothing_ran(ladder: list[Rung]) -> None:
    for rung in ladder:
        rung["latency_ms"] = None
    assert headline.fastest(ladder) is None
    assert headline.faster_without_gate(ladder, None) == []

"""Rungs in turns, on workers that are made up; and the real worker around children that misbehave."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glam_bench.ladder.rungs import RungPlan, plan
from glam_bench.ladder.settings import QUICK, Pace, Settings
from glam_bench.measurements.ladder import Ladder
from glam_bench.worker import RequestFailed, Worker
from glam_deploy.engines import selection
from glam_deploy.errors import BackendRunError, BackendUnavailable
from glam_deploy.networks import GLAM

PACE = Pace(window_s=0, least_runs=2, most_runs=2, most_windows=5, second_start=False)
SETTINGS = Settings(bundle=Path("bundle"), engines=("onnx",), patches=1, images=(), files=False, pace=PACE)
PLANS = [RungPlan(key=key, name=key.title(), opener="engine") for key in ("published", "a", "b")]


class MadeUp:
    """A worker that takes so many milliseconds for each run, and notes what it is asked."""

    def __init__(self, key: str, asked: list[tuple[str, str]], times: list[float], fails: dict[str, Exception]) -> None:
        self.key, self.asked, self.times, self.fails = key, asked, times, fails
        self.started, self.closed = 0.0, False

    def ask(self, do: str, *, within_s: float, **request: Any) -> dict[str, Any]:
        self.asked.append((self.key, do))
        if do in self.fails:
            raise self.fails[do]
        if do == "answer":
            _write_answer(Path(request["folder"]))
        ms = self.times.pop(0) if do == "window" and len(self.times) > 1 else self.times[0]
        answers: dict[str, dict[str, Any]] = {
            "open": {"engine": {"name": self.key, "device": "cpu"}, "build_s": None, "first_run_ms": ms},
            "answer": {"ms": []},
            "window": {"ms": [ms] * request.get("runs", 1), "stages": [{"global": ms}] * request.get("runs", 1)},
            "first": {"ms": [ms], "stages": [{"global": ms}]},
            "memory": {"rss": 100.0, "device": None},
        }
        return answers[do]

    def close(self) -> None:
        self.closed = True


def _write_answer(folder: Path) -> None:
    maps = {
        "saliency_global": np.zeros((2, 184, 120), np.float32),
        "saliency_patches": np.zeros((1, 2, 128, 128), np.float32),
        "patch_locations": np.zeros((1, 2), np.int64),
        "y_global": np.zeros(2, np.float32),
    }
    np.savez(folder / "000.npz", **maps)


Climb = Callable[..., list[Any]]


@pytest.fixture
def asked() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def made() -> dict[str, MadeUp]:
    return {}


@pytest.fixture
def climb(tmp_path: Path, asked: list[tuple[str, str]], made: dict[str, MadeUp]) -> Climb:
    """Runs a ladder; `times` and `fails` by rung."""

    def run(plans: list[RungPlan], times: dict[str, list[float]], fails: dict[str, dict[str, Exception]]) -> list[Any]:
        def start(log: Path) -> Any:
            key = log.stem
            made[key] = MadeUp(key, asked, times.get(key, [10.0]), fails.get(key, {}))
            return made[key]

        return Ladder(SETTINGS, [Path("0_L-CC.npy")], tmp_path, start, lambda step: None, network=GLAM).climb(plans)

    return run


def test_windows_take_turns(climb: Climb, asked: list[tuple[str, str]], made: dict[str, MadeUp]) -> None:
    rungs = climb(PLANS, {"a": [5.0], "b": [40.0]}, {})
    turns = [key for key, do in asked if do == "window"]
    assert turns == ["published", "a", "b"] * 3
    assert [rung["ratio_to"]["published"] for rung in rungs] == pytest.approx([1, 2, 0.25])
    assert [rung["throughput_per_s"] for rung in rungs] == pytest.approx([100, 200, 25])
    assert all(worker.closed for worker in made.values())


def test_what_does_not_hold_still_is_measured_longer_and_called_unstable(
    climb: Climb, asked: list[tuple[str, str]]
) -> None:
    rungs = climb(PLANS, {"a": [10.0, 20.0, 10.0, 20.0, 10.0]}, {})
    assert sum(do == "window" for _, do in asked) == 3 * PACE.most_windows
    assert [rung["latency_ms"]["stable"] for rung in rungs] == [True, False, True]


def test_a_quick_bench_runs_each_network_once(
    tmp_path: Path, asked: list[tuple[str, str]], made: dict[str, MadeUp]
) -> None:
    def start(log: Path) -> Any:
        made[log.stem] = MadeUp(log.stem, asked, [10.0], {})
        return made[log.stem]

    settings = replace(SETTINGS, pace=QUICK)
    rungs = Ladder(settings, [Path("0_L-CC.npy")], tmp_path, start, lambda step: None, network=GLAM).climb(PLANS)
    assert [do for key, do in asked if key == "a"] == ["open", "answer", "first", "memory"]
    assert [rung["latency_ms"]["windows"] for rung in rungs] == [[[10.0]]] * 3


@pytest.mark.parametrize("step", ["open", "answer", "window", "memory"])
def test_a_rung_that_fails_costs_the_others_nothing(climb: Climb, step: str, made: dict[str, MadeUp]) -> None:
    rungs = climb(PLANS, {}, {"a": {step: BackendRunError("it broke")}})
    assert [rung["unavailable"] for rung in rungs] == [None, "it broke", None]
    assert rungs[1]["latency_ms"] is None
    assert rungs[2]["ratio_to"] == {"published": 1.0}
    assert all(worker.closed for worker in made.values())


def test_an_engine_that_was_asked_for_ends_the_bench_before_anything_is_measured(
    climb: Climb, asked: list[tuple[str, str]], made: dict[str, MadeUp], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "runnable", lambda: ["onnx", "openvino"])
    wanted = RungPlan(key="fp16", name="fp16", opener="engine", asked=True)
    with pytest.raises(
        BackendUnavailable,
        match=r"'fp16' cannot run here: no GPU Engines that can run.*: onnx, openv",
    ):
        climb([*PLANS, wanted], {}, {"fp16": {"open": BackendUnavailable("no GPU")}})
    assert asked == [("fp16", "open")]


def test_a_plan_has_each_rung_once_and_what_was_asked_for() -> None:
    asked = Settings(bundle=Path("b"), engines=("onnx", "openvino", "fp16"), patches=1, images=())
    plans = plan(asked)
    keys = [rung.key for rung in plans]
    assert len(set(keys)) == len(keys)
    assert keys[0] == "published"
    assert {rung.key for rung in plans if rung.asked} == {"onnx", "openvino", "fp16"}


# a real child

CHILDREN = {
    "crash": "import os; os.abort()",
    "words": "import sys; sys.exit('out of memory, or so')",
    "hang": "import time; time.sleep(600)",
    "deaf": "import sys; sys.stdin.readline(); import time; time.sleep(600)",
}


@pytest.mark.parametrize(
    ("child", "within_s", "message"),
    [
        ("crash", 60, "its process ended with -6"),
        ("words", 60, "its process ended with 1: out of memory, or so"),
        ("hang", 0.5, "it was not done within"),
        ("deaf", 0.5, "it was not done within"),
    ],
)
def test_a_child_that_does_not_answer(tmp_path: Path, child: str, within_s: float, message: str) -> None:
    worker = Worker(tmp_path / "log", [sys.executable, "-c", CHILDREN[child]])
    try:
        with pytest.raises(RequestFailed, match=message):
            worker.ask("window", within_s=within_s)
    finally:
        worker.close()


def test_what_could_run_here_leaves_out_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_has_gpu", lambda: False)
    assert "onnx" in selection.runnable()
    assert not {"fp16", "onnx-cuda", "onnx-cuda-fp16"} & set(selection.runnable())

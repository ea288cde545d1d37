"""The worker with a network that computes several views at a time, as GPUs do."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import engines as support_engines
from support.batching import Batching
from support.jobs import PROVENANCE, config_of, database_of, made, rows, send, stub
from support.until import until

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.state import studies
from glam_deploy.appliance.work import worker
from glam_deploy.appliance.work.predictor import PredictorLoader
from glam_deploy.errors import InputError, UsageError
from glam_deploy.records import View
from glam_deploy.runtime import pipeline as pipeline_module
from glam_deploy.runtime.pipeline import Pipeline

BARE = "[results]\nseg = false\ncad_sr = false\nsr = false\nsc = false"
BATCHES = '[worker]\nbundle = "bundle"\nbatch = 4'
EXAM = (View.L_CC, View.R_CC, View.L_MLO, View.R_MLO)


@contextmanager
def working(config: Config, loader: PredictorLoader) -> Iterator[DataFolder]:
    with closing(database_of(made(config))) as connection:
        studies.assemble_complete(connection, config.assemble.model_copy(update={"quiet_s": 0.0}), 1e9)
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(config, stop), kwargs={"loader": loader})
    thread.start()
    try:
        yield made(config)
    finally:
        stop.set()
        thread.join()


def outcomes(data: DataFolder) -> list[object]:
    until(lambda: rows(data, "SELECT state FROM job") == [("done",)])
    return sorted(str(outcome) for (outcome,) in rows(data, "SELECT outcome FROM job_view"))


@pytest.mark.parametrize("count", [4, 3])
def test_views_are_started_while_others_are_under_way(tmp_path: Path, count: int) -> None:
    """The engine answers only while it has two views at once; a view of this test goes with the last of three."""

    def load(config: Config) -> Pipeline:
        opened = support_engines.in_step(2)
        found = Pipeline(
            replace(opened, identity=support_engines.fake_identity("onnx")), patches=1, provenance=PROVENANCE
        )
        if count % 2:
            threading.Thread(target=found, args=(support_engines.small_view(),)).start()
        return found

    config = config_of(tmp_path, BARE)
    send(config, *EXAM[:count])
    with working(config, load) as data:
        assert outcomes(data) == ["done"] * count


@pytest.mark.parametrize(("count", "sizes"), [(4, [4]), (2, [1, 1])])
def test_the_views_of_a_study_are_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, sizes: list[int]
) -> None:
    chains = batching(monkeypatch)
    config = config_of(tmp_path, BATCHES, BARE)
    send(config, *EXAM[:count])
    with working(config, stub) as data:
        assert outcomes(data) == ["done"] * count
    assert chains[0].sizes == sizes


def test_a_view_that_cannot_be_used_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chains = batching(monkeypatch, refused=View.R_CC)
    config = config_of(tmp_path, BATCHES, BARE)
    send(config, *EXAM)
    with working(config, stub) as data:
        assert outcomes(data) == ["done", "done", "done", "failed"]
        assert rows(data, "SELECT reason FROM job_view WHERE outcome = 'failed'") == [("made up: no breast",)]
    assert sorted(chains[0].sizes) == [1, 1, 1, 1, 4]


def batching(monkeypatch: pytest.MonkeyPatch, *, refused: View | None = None) -> list[Batching]:
    """Chains of pipelines from now on."""

    class Refusing(Batching):
        def _run(self, prepared: Any, clock: Any) -> Any:
            if prepared.view is refused:
                raise InputError("made up: no breast")
            return super()._run(prepared, clock)

    def make(*arguments: Any, **options: Any) -> Batching:
        chains.append(Refusing(*arguments, **options))
        return chains[-1]

    chains: list[Batching] = []
    monkeypatch.setattr(pipeline_module, "HostChain", make)
    return chains


@pytest.mark.parametrize(("written", "found"), [("2", 2), ("[0, 1]", (0, 1)), ('"all"', "all"), ("[3]", (3,))])
def test_gpus_in_the_configuration(tmp_path: Path, written: str, found: object) -> None:
    config = config_of(tmp_path, f'[worker]\nbundle = "bundle"\ndevice = {written}')
    assert config.worker.device == found
    assert config_of(tmp_path).worker.device is None


@pytest.mark.parametrize("written", ["-1", "[]", "[0, 0]", "[0, -1]", '"every"', "true", "1.5", '["0"]'])
def test_what_is_no_selection_of_gpus(tmp_path: Path, written: str) -> None:
    with pytest.raises(
        UsageError, match=r"worker.device: expected the index of a GPU, a list of indices such as \[0, 1"
    ):
        config_of(tmp_path, f'[worker]\nbundle = "bundle"\ndevice = {written}')

"""The chain's times, on the fake GPU: their sums are right, and what must not happen is seen when it happens."""

from time import sleep
from typing import Any

import pytest
from fake_cuda.control import FakeDriver
from support.chains import Eager, kernels, stage_engines
from support.device import HostFunctionEngine
from support.engines import fake_identity

from glam_bench.gpu.clock import Runs, Timer, Work
from glam_bench.gpu.stage_runs import StageRuns
from glam_bench.measurements import chain_times
from glam_bench.measurements.chain_times import Subject
from glam_bench.opening import pipeline_of
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.base import GpuEngines

ONCE = Runs(warm_up=0, warm_up_s=0, at_least=1, at_most=1, seconds=0)


def opened(gpu: Gpu, driver: FakeDriver, kind: type[HostFunctionEngine] = HostFunctionEngine) -> GpuEngines:
    engines = {stage: kind(engine, gpu, driver) for stage, engine in stage_engines().items()}
    return GpuEngines(engines=engines, identity=fake_identity(), gpu=gpu, kernels=kernels(gpu))


def test_one_shape(gpu: Gpu, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_times, "host_times", lambda *_: {})
    monkeypatch.setattr(chain_times, "_under_load", lambda *_: None)
    row: dict[str, Any] = {}
    for part in Subject(opened(gpu, driver), [], ONCE).parts(1, 1):
        row |= part
    whole, networks = row["resident"]["gpu"]["p50"], row["stages"]["both networks"]["p50"]
    assert row["glue"] == {"ms": whole - networks, "share": (whole - networks) / whole}
    assert row["capturable"] == {"global": True, "local": True, "fusion": True}
    assert row["stages"].keys() == {"global", "local", "fusion", "both networks"}
    assert row["stages_call_returns"].keys() == {"one by one", "one graph"}
    assert row["cuda_graph"] == {"state": "recorded", "reason": None}
    assert row["watched"] | {"calls_returned_early": 0} == {
        "runs": 1,
        "allocations": 0,
        "waits": 0,
        "memory_change_bytes": 0,
        "calls_returned_early": 0,
    }


class Unrecordable(HostFunctionEngine):
    """It allocates in every run, which no recording allows."""

    def bind(self, *arguments: Any, **more: Any) -> Any:
        run, gpu = super().bind(*arguments, **more), self.gpu
        plain = run.enqueue

        def enqueue(stream: Any) -> None:
            plain(stream)
            gpu.allocate(1)

        run.enqueue = enqueue  # type: ignore[method-assign]
        return run


def test_stages_that_cannot_be_recorded_are_timed_and_named(gpu: Gpu, driver: FakeDriver) -> None:
    stages = StageRuns(opened(gpu, driver, Unrecordable).engines, gpu, 1, 1)  # type: ignore[arg-type]
    assert stages.times(ONCE).keys() == {"global", "local", "fusion", "both networks"}
    assert stages.not_recorded.keys() == {"global", "local", "fusion", "global, local"}
    assert stages.call_times(ONCE).keys() == {"one by one"}
    assert all("STREAM_CAPTURE_UNSUPPORTED" in reason for reason in stages.not_recorded.values())


class Careless(Eager):
    """Allocates and waits in every run, and keeps what it has allocated."""

    def bind(self, *arguments: Any, **more: Any) -> Any:
        run, kept, gpu = super().bind(*arguments, **more), [], self.gpu
        plain = run.enqueue

        def enqueue(stream: Any) -> None:
            kept.append(gpu.allocate(1 << 20))
            plain(stream)
            stream.synchronize()

        run.enqueue = enqueue
        return run


def test_an_engine_that_allocates_and_waits_is_seen(gpu: Gpu, driver: FakeDriver) -> None:
    with pipeline_of(opened(gpu, driver, Careless), 1).slot() as slot:
        chain_times.fill(slot, 1)
        slot.run()
        found = chain_times.watched(gpu, slot, 2)
    assert (found["allocations"], found["waits"]) == (6, 6)
    assert found["memory_change_bytes"] >= 6 << 20


def test_what_precedes_each_launch_is_taken_off(gpu: Gpu, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that knows what each work costs: a short one 1 ms, and one before it 100 ms."""
    timer, costs = Timer(gpu, gpu.stream()), list[float]()

    def on_gpu(work: Work, _: Runs) -> list[float]:
        costs.clear()
        work()
        timer.stream.synchronize()
        return [sum(costs)]

    monkeypatch.setattr(timer, "on_gpu", on_gpu)
    short, long = (lambda ms=ms: driver.put(timer.stream, lambda: costs.append(ms)) for ms in (1.0, 100.0))
    assert timer.per_launch_us(short, times=10, repeats=1) == 1000
    assert timer.per_launch_us(short, times=10, repeats=1, before=long) == 1000


def test_a_call_is_timed_until_it_returns_and_until_it_is_done(gpu: Gpu, driver: FakeDriver) -> None:
    """The fake GPU does nothing before somebody waits, and then takes 20 ms."""
    stream = gpu.stream()
    timer = Timer(gpu, stream)
    work: Work = lambda: driver.put(stream, lambda: sleep(0.02))  # noqa: E731
    assert max(timer.on_host(work, ONCE)) > 20 > max(timer.to_return(work, ONCE))

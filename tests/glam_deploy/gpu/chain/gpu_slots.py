"""What a run costs, who owns a slot, and what a failure leaves. Run by test_on_fake_gpu.py."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from fake_cuda.control import HOST, FakeDriver
from support.chains import Eager, assert_same, break_gpu, kernels, on_gpu, raw_view, stage_engines
from support.device import HostFunctionEngine

from glam_deploy.errors import BackendRunError, InputError, UsageError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.slot import GpuStages, Slot
from glam_deploy.networks import GLAM_CONCATENATION
from glam_deploy.preprocess import prepare
from glam_deploy.records import NetworkInput
from glam_deploy.runtime.pipeline import Pipeline

Pair = Callable[..., tuple[Pipeline, Pipeline]]
KERNELS = ["moments", "standardize", "propose", "propose", "crop", "fuse"]
"""Of a raw view and two patches."""


@pytest.fixture(scope="module")
def views() -> list[NetworkInput]:
    """Standardized, which costs the fake GPU half."""
    return [prepare(raw_view(seed)) for seed in range(8)]


def calls_and_work(lines: list[str]) -> tuple[list[str], list[str]]:
    """Calls of the host, and work that the GPU did."""
    calls, work = ([line for line in lines if line.startswith(">") == is_work] for is_work in (False, True))
    return calls, [line.removeprefix("> ") for line in work]


def test_a_run_of_a_raw_view_is_two_launches(pair: Pair, driver: FakeDriver) -> None:
    """Nothing is allocated. The host waits for the placing, whose samples it judges, and for the result."""
    _, device = pair(2)
    device(raw_view(0))
    with driver.recorded() as lines:
        device(raw_view(1))
    calls, work = calls_and_work(lines)
    placing = ["cuMemcpyHtoDAsync", "cuGraphLaunch", "cuMemcpyDtoHAsync", "cuEventRecord"]
    waiting = ["cuEventSynchronize", "cuStreamSynchronize", "cuEventElapsedTime"]
    assert calls == ["cuEventRecord", *placing, "cuGraphLaunch", "cuEventRecord", *waiting]
    assert work[:2] == ["event", "copy in"]
    assert work[-2:] == ["copy out", "event"]
    assert [name for name in work if name in KERNELS] == KERNELS
    assert (work.count("copy in"), work.count("copy out"), work.count("event")) == (1, 2, 3)


def test_a_run_of_a_standardized_view_is_one_launch_and_one_wait(
    pair: Pair, driver: FakeDriver, views: list[NetworkInput]
) -> None:
    """Its values are checked by the GPU."""
    _, device = pair(2)
    device(views[0])
    with driver.recorded() as lines:
        device(views[1])
    calls, work = calls_and_work(lines)
    waiting = ["cuStreamSynchronize", "cuEventElapsedTime"]
    assert calls == ["cuEventRecord", "cuMemcpyHtoDAsync", "cuGraphLaunch", "cuEventRecord", *waiting]
    assert [name for name in work if name in {*KERNELS, "examine"}] == [*KERNELS[2:], "examine"]
    assert work.count("copy in") == work.count("copy out") == 1


def test_nobody_prepares_while_another_records(gpu: Gpu, driver: FakeDriver, views: list[NetworkInput]) -> None:
    """An engine may wait for the whole context as it is bound and first run, in any thread: that breaks a recording."""
    held: list[tuple[str, bool]] = []

    class Watched(HostFunctionEngine):
        def bind(self, *arguments: Any, **more: Any) -> Any:
            held.append(("bound", stages.preparing.locked()))
            run = super().bind(*arguments, **more)
            enqueue = run.enqueue

            def watched(stream: Stream) -> None:
                held.append(("recorded" if stream.is_capturing else "run", stages.preparing.locked()))
                enqueue(stream)

            run.enqueue = watched  # type: ignore[method-assign]
            return run

    engines = {stage: Watched(engine, gpu, driver) for stage, engine in stage_engines().items()}
    stages = GpuStages(network=GLAM_CONCATENATION, gpu=gpu, kernels=kernels(gpu), engines=engines, patches=1)
    slot = Slot(stages, images=1)
    slot.start(slot.stage(views[:1]))
    slot.collect()
    assert held == [("bound", True)] * 3 + [("run", True)] * 3 + [("recorded", True)] * 3
    assert not stages.preparing.locked()


def test_engines_that_cannot_be_recorded_wait_no_more_often(pair: Pair, gpu: Gpu, views: list[NetworkInput]) -> None:
    _, device = pair(2, kind=Eager)
    device(views[0])
    before = gpu.counts
    device(views[1])
    assert gpu.counts.allocations == before.allocations
    assert gpu.counts.synchronisations == before.synchronisations + 1


def test_many_threads_on_one_pipeline(pair: Pair, driver: FakeDriver, views: list[NetworkInput]) -> None:
    host, device = pair(2, slots=2)
    expected = [host(view) for view in views]
    held: set[tuple[int, int]] = set()

    def run(n: int) -> None:
        assert_same(device(views[n % 8]), expected[n % 8])
        held.add((driver.live(), driver.live(HOST)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(4)))
        held.clear()
        list(pool.map(run, range(4, 20)))
    gc.collect()
    assert len(held) == 1


def test_nothing_of_a_pipeline_stays_when_it_goes(gpu: Gpu, driver: FakeDriver, views: list[NetworkInput]) -> None:
    gc.collect()
    before = driver.live(), driver.live(HOST)
    device = on_gpu(stage_engines(), gpu=gpu, driver=driver)
    result = device(views[0])
    assert driver.live() > before[0]
    del device
    gc.collect()
    assert (driver.live(), driver.live(HOST)) == before
    assert result.y_global.shape == (2,)


def test_slots_are_made_when_they_are_needed(pair: Pair, driver: FakeDriver, views: list[NetworkInput]) -> None:
    gc.collect()
    _, device = pair(1, slots=2)
    before = driver.live()
    device(views[0])
    device(views[1])
    assert driver.live() == before + 1
    both = [device.submit(view) for view in views[:2]]
    assert driver.live() == before + 2
    assert [pending.result().patch_locations.tolist() for pending in both]


def test_the_next_view_is_under_way_before_this_one_is_waited_for(
    pair: Pair, driver: FakeDriver, views: list[NetworkInput]
) -> None:
    host, device = pair(1, slots=2)
    list(device.map(views[:4]))  # every slot has recorded its graph
    with driver.recorded() as lines:
        found = list(device.map(views[:4]))
    order = [line for line in lines if line in {"cuGraphLaunch", "cuStreamSynchronize"}]
    launch, wait = "cuGraphLaunch", "cuStreamSynchronize"
    assert order == [launch, launch, wait, launch, wait, launch, wait, wait]
    for result, view in zip(found, views, strict=False):
        assert_same(result, host(view))


def test_a_caller_with_more_runs_than_slots_does_not_block_itself(pair: Pair, views: list[NetworkInput]) -> None:
    host, device = pair(1, slots=2)
    pending = [device.submit(view) for view in views[:5]]
    for one, view in reversed(list(zip(pending, views, strict=False))):
        assert_same(one.result(), host(view))
        assert one.result() is one.result()


def test_results_that_nobody_asks_for_cost_no_slot(pair: Pair, views: list[NetworkInput]) -> None:
    host, device = pair(1, slots=1)
    for view in views[:3]:
        device.submit(view)
    assert_same(device(views[3]), host(views[3]))


def test_a_slot_that_is_lent_is_waited_for(pair: Pair, views: list[NetworkInput]) -> None:
    host, device = pair(1, slots=1)
    found, done = [], Event()

    def run() -> None:
        found.append(device(views[0]))
        done.set()

    with device.slot():
        thread = Thread(target=run)
        thread.start()
        assert not done.wait(0.3)
    thread.join()
    assert_same(found[0], host(views[0]))


def test_an_image_that_cannot_be_used_costs_no_slot(pair: Pair, views: list[NetworkInput]) -> None:
    host, device = pair(1, slots=1)
    for _ in range(3):
        with pytest.raises(InputError):
            device(np.zeros((700, 500), np.uint16), view="L-CC")
    assert_same(device(views[0]), host(views[0]))


def test_numbers_that_are_not_finite_do_not_end_the_pipeline(
    pair: Pair, views: list[NetworkInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, device = pair(1)
    with monkeypatch.context() as patch:
        patch.setenv("GLAM_TEST_NAN", "1")
        with pytest.raises(BackendRunError, match="y_scale"):
            device(views[0])
    assert_same(device(views[0]), host(views[0]))


@pytest.mark.parametrize("slots", [1, 2])
def test_no_memory_for_a_slot(
    gpu: Gpu, pair: Pair, views: list[NetworkInput], monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    """What is under way goes on, and another try may find memory."""
    host, device = pair(1, slots=slots)
    pending = [device.submit(view) for view in views[: slots - 1]]

    def full(nbytes: int) -> None:
        raise BackendRunError(f"no room for {nbytes} bytes")

    with monkeypatch.context() as patch:
        patch.setattr(gpu, "allocate", full)
        with pytest.raises(BackendRunError, match="no room"):
            device(views[7])
    pending.append(device.submit(views[slots - 1]))
    for one, view in zip(pending, views, strict=False):
        assert_same(one.result(), host(view))


def test_a_gpu_that_fails_ends_the_pipeline(
    driver: FakeDriver, gpu: Gpu, pair: Pair, views: list[NetworkInput]
) -> None:
    _, device = pair(1, slots=2)
    device(views[0])
    pending = [device.submit(view) for view in views[:2]]
    try:
        break_gpu(gpu)
        with pytest.raises(BackendRunError, match="cuStreamSynchronize failed with CUDA_ERROR_ILLEGAL_ADDRESS"):
            pending[0].result()
        with pytest.raises(BackendRunError, match=r"compute further results\. Restart the process.*ILLEGAL_ADDRESS"):
            device(views[0])
        for one in pending:
            with pytest.raises(BackendRunError):
                one.result()
        with pytest.raises(BackendRunError, match="Restart the process"), device.slot():
            pass
    finally:
        driver.repair()


def test_waiting_threads_learn_of_a_failure(
    driver: FakeDriver, gpu: Gpu, pair: Pair, views: list[NetworkInput]
) -> None:
    _, device = pair(1, slots=1)
    device(views[0])
    said: list[str] = []

    def run() -> None:
        with pytest.raises(BackendRunError) as caught:
            device(views[0])
        said.append(str(caught.value))

    with pytest.raises(BackendRunError), device.slot() as slot:
        threads = [Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        break_gpu(gpu)
        slot.run()
    for thread in threads:
        thread.join()
    driver.repair()
    assert len(said) == 3


def test_slots_are_for_one_image_or_four(pair: Pair) -> None:
    with (
        pytest.raises(UsageError, match="there is no slot for 2 images, expected 1 or 4 images"),
        pair()[1].slot(2),
    ):
        pass

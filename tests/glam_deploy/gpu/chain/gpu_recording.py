"""Recordings that succeed, that fail, and that are not tried. Run by test_on_fake_gpu.py."""

import gc
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from support.chains import Eager, assert_same, break_gpu, raw_view
from support.device import HostFunctionEngine, HostFunctionRun

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device import stream as stream_module
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.preprocess import prepare
from glam_deploy.records import Mammogram, NetworkInput
from glam_deploy.runtime.pipeline import Pipeline

Pair = Callable[..., tuple[Pipeline, Pipeline]]
Misdeed = Callable[[Gpu, Stream], object]


def refuse(gpu: Gpu, stream: Stream) -> None:
    """As `IExecutionContext.execute_async_v3`, which returns False."""
    raise BackendRunError("local engine: TensorRT 10.13.3.9 cannot run: Error Code 1: Cuda Runtime (901)")


def fork(gpu: Gpu, stream: Stream) -> None:
    """Work in a stream of its own that nothing waits for."""
    forked, side, memory = gpu.event(), gpu.stream(), gpu.allocate_before  # type: ignore[attr-defined]
    stream.record(forked)
    side.wait(forked)
    side.fill(memory.address, 1, 0)
    kept.append((side, forked))


def swallow(gpu: Gpu, stream: Stream) -> None:
    """A call that ends the recording, and whose error the library does not hand on."""
    with suppress(BackendRunError):
        gpu.allocate(1)


def elsewhere(gpu: Gpu, stream: Stream) -> None:
    """The GPU fails of another thread's work, and the library notices."""
    thread = Thread(target=break_gpu, args=(gpu,))
    thread.start()
    thread.join()
    gpu.event()


kept: list[object] = []
MISDEEDS: dict[str, tuple[Misdeed, str]] = {
    "the library says so": (refuse, r"Error Code 1: Cuda Runtime \(901\)"),
    "it allocates": (lambda gpu, _: gpu.allocate(1), "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
    "it waits": (lambda _, stream: stream.synchronize(), "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
    "it waits for the context": (lambda gpu, _: gpu._context.call("cuCtxSynchronize"), "STREAM_CAPTURE_UNSUPPORTED"),
    "it swallows the error": (swallow, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
    "it leaves a fork open": (fork, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"),
}
"""What an engine does in a recording that CUDA prohibits. Source: CUDA C++ Programming Guide, "Prohibited and Unhandled
Operations" and "Cross-stream Dependencies and Events"."""


def that(misdeed: Misdeed) -> type[HostFunctionEngine]:
    """An engine that says it can be recorded, and does this when it is."""

    class Unrecordable(HostFunctionEngine):
        def bind(self, *arguments: Any, **more: Any) -> Any:
            return UnrecordableRun(super().bind(*arguments, **more), self.gpu, misdeed)

    return Unrecordable


@dataclass
class UnrecordableRun:
    inner: HostFunctionRun
    gpu: Gpu
    misdeed: Misdeed
    capturable = True

    def enqueue(self, stream: Stream) -> None:
        self.inner.enqueue(stream)
        if stream.is_capturing:
            self.misdeed(self.gpu, stream)


@pytest.fixture(scope="module")
def views() -> list[Mammogram | NetworkInput]:
    """Of two kinds, each with a recording of its own."""
    return [prepare(raw_view(0)), raw_view(1), prepare(raw_view(2)), raw_view(3)]


@pytest.mark.parametrize("what", MISDEEDS)
def test_a_recording_that_fails_costs_no_result(
    pair: Pair, gpu: Gpu, driver: FakeDriver, views: list[Any], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 7 of the review: it ended the pool."""
    gpu.allocate_before = gpu.allocate(1)  # type: ignore[attr-defined]
    misdeed, words = MISDEEDS[what]
    host, device = pair(1, slots=1, kind=that(misdeed))
    before = driver.count("cuStreamBeginCapture")
    for view in views[:3]:
        result = device(view)
        assert_same(result, host(view))
        assert result.provenance["cuda_graph"]["state"] == "failed"
        assert re.search(words, result.provenance["cuda_graph"]["reason"])
    # one try for each kind of input, and the placing of raw views, which succeeds
    assert driver.count("cuStreamBeginCapture") == before + 3
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "its steps are enqueued one by one" in caplog.text
    kept.clear()


def test_what_instantiating_refuses_runs_piece_by_piece(
    pair: Pair, views: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, recorded: object) -> None:
        raise BackendRunError("cuGraphInstantiate failed with CUDA_ERROR_OUT_OF_MEMORY (2)")

    monkeypatch.setattr(stream_module.Graph, "instantiate", full)
    host, device = pair(1)
    result = device(views[0])
    assert_same(result, host(views[0]))
    assert result.provenance["cuda_graph"] == {
        "state": "failed",
        "reason": "cuGraphInstantiate failed with CUDA_ERROR_OUT_OF_MEMORY (2)",
    }


def test_four_views_and_a_callers_own_images(pair: Pair, views: list[Any]) -> None:
    host, device = pair(2, kind=that(refuse))
    ready = [view if isinstance(view, NetworkInput) else prepare(view) for view in views]
    for result, view in zip(device.batch(ready), ready, strict=True):
        assert_same(result, host(view))
        assert result.provenance["cuda_graph"]["state"] == "failed"
    with device.slot() as slot:
        image = np.ascontiguousarray(ready[0].image)
        slot.stream.copy_in(slot.image.address, image.ctypes.data, image.nbytes)
        slot.run()
        found = slot.result(placed=ready[0])
    assert_same(found, host(ready[0]))
    assert found.provenance["cuda_graph"]["state"] == "failed"


def test_a_gpu_that_fails_in_a_recording_ends_the_pipeline(
    pair: Pair, gpu: Gpu, driver: FakeDriver, views: list[Any]
) -> None:
    """It is no fault of the recording: nothing that is computed afterwards means anything."""
    _, device = pair(1, slots=1, kind=that(elsewhere))
    try:
        with pytest.raises(BackendRunError, match="ILLEGAL_ADDRESS"):
            device(views[0])
        with pytest.raises(BackendRunError, match=r"cannot compute further results\. Restart the process"):
            device(views[0])
    finally:
        driver.repair()
        gc.collect()


def test_a_first_result_is_recorded_as_those_after_it(pair: Pair, views: list[Any]) -> None:
    host, device = pair(1)
    for view in (views[0], views[0], views[1]):
        assert device(view).provenance["cuda_graph"] == {"state": "recorded", "reason": None}
    assert "cuda_graph" not in host(views[0]).provenance


def test_engines_that_say_of_themselves_that_they_cannot_be(
    pair: Pair, driver: FakeDriver, views: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    _, device = pair(1, kind=Eager)
    before = driver.count("cuStreamBeginCapture")
    assert device(views[0]).provenance["cuda_graph"] == {
        "state": "not recordable",
        "reason": "engines that cannot be recorded: global, local, fusion",
    }
    assert driver.count("cuStreamBeginCapture") == before
    assert not caplog.records, "it is their nature, and docs/gpu.md says so"


def test_engines_have_run_and_are_waited_for_before_any_recording(
    pair: Pair, driver: FakeDriver, views: list[Any]
) -> None:
    """What a first run allocates and compiles no graph can hold. Source: trtexec's sampleInference.cpp."""
    _, device = pair(1)
    with driver.recorded() as lines:
        device(views[0])
    begin = lines.index("cuStreamBeginCapture")
    runs = [n for n, line in enumerate(lines) if line == "cuLaunchHostFunc" and n < begin]
    wait = max(n for n, line in enumerate(lines) if line == "cuStreamSynchronize" and n < begin)
    assert len(runs) == 3
    assert runs[-1] < wait < begin
    assert lines[wait:begin].count("> host function") == 3

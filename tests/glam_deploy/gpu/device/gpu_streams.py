"""Memory, streams, events, graphs: what is done, in which order, and what is refused. Run by test_on_fake_gpu.py."""

from collections.abc import Callable
from threading import Thread

import numpy as np
import pytest
from fake_cuda.control import HOST, FakeDriver

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.context import ALIGNMENT, DeviceMemory, PinnedMemory
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.kernel import Module
from glam_deploy.gpu.device.stream import Graph, Stream

BYTES = 1000


@pytest.fixture
def stream(gpu: Gpu) -> Stream:
    return gpu.stream()


@pytest.fixture
def memory(gpu: Gpu) -> DeviceMemory:
    return gpu.allocate(BYTES)


@pytest.fixture
def host(gpu: Gpu) -> PinnedMemory:
    return gpu.pinned(BYTES)


def filled(host: PinnedMemory, seed: int) -> np.ndarray:
    """Random bytes, put into pinned memory."""
    values = np.random.default_rng(seed).integers(0, 256, host.nbytes, np.uint8)
    host.array[:] = values
    return values


def downloaded(gpu: Gpu, memory: DeviceMemory) -> np.ndarray:
    host, stream = np.empty(memory.nbytes, np.uint8), gpu.stream()
    stream.copy_out(host.ctypes.data, memory.address, memory.nbytes)
    stream.synchronize()
    return host


def test_bytes_come_back(gpu: Gpu, stream: Stream, memory: DeviceMemory, host: PinnedMemory) -> None:
    values, other, back = filled(host, 1), gpu.allocate(BYTES), gpu.pinned(BYTES)
    stream.copy_in(memory.address, host.address, BYTES)
    stream.copy(other.address, memory.address, BYTES)
    stream.fill(other.address + 10, 5, 0xAB)
    stream.copy_out(back.address, other.address, BYTES)
    stream.synchronize()
    values[10:15] = 0xAB
    np.testing.assert_array_equal(back.array, values)


def test_addresses_are_aligned(gpu: Gpu) -> None:
    for nbytes in (1, 255, 257, 5000):
        assert gpu.allocate(nbytes).address % ALIGNMENT == 0
        assert gpu.pinned(nbytes).address % ALIGNMENT == 0


@pytest.mark.parametrize("nbytes", [0, -1])
def test_no_memory_is_refused(gpu: Gpu, nbytes: int) -> None:
    for make in (gpu.allocate, gpu.pinned):
        with pytest.raises(BackendRunError, match=rf"^{nbytes} bytes"):
            make(nbytes)


def test_too_much_memory_is_told_with_what_to_do(gpu: Gpu) -> None:
    with pytest.raises(BackendRunError, match=r"cuMemAlloc failed with CUDA_ERROR_OUT_OF_MEMORY \(2\)\. Free GPU mem"):
        gpu.allocate(1 << 50)


def test_memory_goes_with_its_last_reference_or_when_closed(driver: FakeDriver, gpu: Gpu) -> None:
    before, used = (driver.live(), driver.live(HOST)), gpu.used_bytes
    first, second, pinned = gpu.allocate(BYTES), gpu.allocate(BYTES), gpu.pinned(BYTES)
    view = pinned.array[10:20]
    assert gpu.used_bytes == used + 2 * BYTES
    assert gpu.used_bytes + gpu.free_bytes == gpu.memory_bytes
    first.close()
    first.close()
    assert first.closed
    assert not second.closed
    del second, pinned
    assert (driver.live(), driver.live(HOST)) == (before[0], before[1] + 1)
    del view
    assert driver.live(HOST) == before[1]
    assert gpu.used_bytes == used


def test_pinned_memory_is_seen_as_it_is(host: PinnedMemory) -> None:
    host.array.view(np.uint16)[3] = 0x1234
    assert list(host.array[6:8]) == [0x34, 0x12]
    assert host.array.ctypes.data == host.address


def test_nothing_waits_before_it_must(
    driver: FakeDriver, gpu: Gpu, stream: Stream, memory: DeviceMemory, host: PinnedMemory
) -> None:
    before = gpu.counts
    values, back = filled(host, 2), gpu.pinned(BYTES)
    back.array[:] = 0
    stream.copy_in(memory.address, host.address, BYTES)
    stream.copy_out(back.address, memory.address, BYTES)
    assert not back.array.any()
    assert not stream.is_idle
    stream.synchronize()
    assert stream.is_idle
    np.testing.assert_array_equal(back.array, values)
    after = gpu.counts
    assert (after.allocations - before.allocations, after.synchronisations - before.synchronisations) == (1, 1)


def test_asking_again_and_again_ends(driver: FakeDriver, gpu: Gpu, stream: Stream, memory: DeviceMemory) -> None:
    done = gpu.event()
    for _ in range(5):
        stream.fill(memory.address, BYTES, 1)
    stream.record(done)
    asked = [done.is_done for _ in range(7)]
    assert asked[0] is False
    assert asked[-1] is True


def test_a_stream_waits_for_a_mark_in_another(
    driver: FakeDriver, gpu: Gpu, stream: Stream, memory: DeviceMemory, host: PinnedMemory
) -> None:
    values, other, mark = filled(host, 3), gpu.stream(), gpu.event()
    unordered, ordered = gpu.pinned(BYTES), gpu.pinned(BYTES)
    stream.copy_in(memory.address, host.address, BYTES)
    stream.record(mark)
    other.copy_out(unordered.address, memory.address, BYTES)
    other.wait(mark)
    other.copy_out(ordered.address, memory.address, BYTES)
    other.synchronize()
    assert not np.array_equal(unordered.array, values)
    np.testing.assert_array_equal(ordered.array, values)


def test_time_between_marks(driver: FakeDriver, gpu: Gpu, stream: Stream, memory: DeviceMemory) -> None:
    start, end = gpu.event(timing=True), gpu.event(timing=True)
    stream.record(start)
    for _ in range(9):
        stream.fill(memory.address, BYTES, 0)
    stream.record(end)
    with pytest.raises(BackendRunError, match="CUDA_ERROR_NOT_READY"):
        end.milliseconds_since(start)
    end.synchronize()
    assert end.milliseconds_since(start) == pytest.approx(0.010)  # the fake's clock: each piece of work a microsecond


def test_marks_that_do_not_measure(gpu: Gpu, stream: Stream) -> None:
    start, end = gpu.event(), gpu.event()
    stream.record(start)
    stream.record(end)
    end.synchronize()
    with pytest.raises(BackendRunError, match="CUDA_ERROR_INVALID_HANDLE"):
        end.milliseconds_since(start)


def test_a_graph_repeats_what_was_recorded(
    gpu: Gpu, stream: Stream, memory: DeviceMemory, host: PinnedMemory, toys: Module
) -> None:
    n, result, back, scale = 250, gpu.allocate(BYTES), gpu.pinned(BYTES), toys.kernel("scale")
    with stream.capture() as graph:
        assert stream.is_capturing
        stream.copy_in(memory.address, host.address, BYTES)
        stream.launch(scale, (2, 1, 1), (128, 1, 1), memory.address, result.address, np.float32(0.5), np.int32(n))
        stream.copy_out(back.address, result.address, BYTES)
    assert not stream.is_capturing
    for seed in (4, 5):
        values = np.random.default_rng(seed).normal(size=n).astype(np.float32)
        host.array.view(np.float32)[:] = values
        before = gpu.counts
        graph.launch(stream)
        assert gpu.counts == before
        stream.synchronize()
        np.testing.assert_array_equal(back.array.view(np.float32), values * np.float32(0.5))


def test_nothing_is_done_while_recording(driver: FakeDriver, gpu: Gpu, stream: Stream, memory: DeviceMemory) -> None:
    with driver.recorded() as lines:
        with stream.capture() as graph:
            stream.fill(memory.address, BYTES, 7)
        graph.launch(stream)
        stream.synchronize()
    assert lines == [
        "cuStreamBeginCapture",
        "cuMemsetD8Async",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphDestroy",
        "cuGraphLaunch",
        "cuStreamSynchronize",
        "> fill",
    ]
    assert (downloaded(gpu, memory) == 7).all()


def test_a_graph_may_fork_and_join(gpu: Gpu, stream: Stream, memory: DeviceMemory) -> None:
    side, forked, joined = gpu.stream(), gpu.event(), gpu.event()
    with stream.capture() as graph:
        stream.fill(memory.address, BYTES, 1)
        stream.record(forked)
        side.wait(forked)
        side.fill(memory.address, 10, 2)
        side.record(joined)
        stream.wait(joined)
        stream.fill(memory.address, 5, 3)
    assert not side.is_capturing
    graph.launch(stream)
    stream.synchronize()
    assert [downloaded(gpu, memory)[at] for at in (0, 5, 10)] == [3, 2, 1]


def test_a_fork_left_open_is_refused(gpu: Gpu, stream: Stream, memory: DeviceMemory) -> None:
    side, forked = gpu.stream(), gpu.event()
    with pytest.raises(BackendRunError, match="CUDA_ERROR_STREAM_CAPTURE_UNJOINED"), stream.capture():
        stream.record(forked)
        side.wait(forked)
        side.fill(memory.address, 10, 2)
    assert not stream.is_capturing


FORBIDDEN: dict[str, Callable[[Gpu, Stream], object]] = {
    "allocating": lambda gpu, _: gpu.allocate(BYTES),
    "pinning": lambda gpu, _: gpu.pinned(BYTES),
    "waiting": lambda _, stream: stream.synchronize(),
    "asking": lambda _, stream: stream.is_idle,
    "waiting elsewhere": lambda gpu, _: gpu.stream().synchronize(),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_graph_cannot_record_ends_the_recording(gpu: Gpu, stream: Stream, what: str) -> None:
    with pytest.raises(BackendRunError, match=r"UNSUPPORTED \(900\)\. This call is not allowed"), stream.capture():
        FORBIDDEN[what](gpu, stream)
    stream.synchronize()


def test_a_fault_that_was_swallowed_shows_when_the_recording_ends(gpu: Gpu, stream: Stream) -> None:
    with pytest.raises(BackendRunError, match="STREAM_CAPTURE_INVALIDATED"), stream.capture() as graph:  # noqa: SIM117
        with pytest.raises(BackendRunError):
            gpu.allocate(BYTES)
    with pytest.raises(BackendRunError, match="before the end of its recording"):
        graph.launch(stream)


def test_an_error_of_the_caller_ends_the_recording_too(driver: FakeDriver, gpu: Gpu, stream: Stream) -> None:
    with pytest.raises(ZeroDivisionError), stream.capture():
        raise ZeroDivisionError
    assert not stream.is_capturing


def test_memory_may_go_while_a_graph_is_recorded(driver: FakeDriver, gpu: Gpu, stream: Stream) -> None:
    """As the garbage collector has it: any thread, any time."""
    old, before = gpu.allocate(BYTES), driver.live()
    with stream.capture():
        del old
    assert driver.live() == before - 1


def test_a_copy_from_memory_that_is_not_pinned_is_recorded(gpu: Gpu, stream: Stream, memory: DeviceMemory) -> None:
    """As an H200 with driver 580.159 does: nothing warns whoever records such a copy."""
    host = np.random.default_rng(3).integers(0, 256, BYTES, np.uint8)
    with stream.capture() as graph:
        stream.copy_in(memory.address, host.ctypes.data, BYTES)
    for _ in range(2):
        stream.fill(memory.address, BYTES, 0xEE)
        graph.launch(stream)
        stream.synchronize()
        np.testing.assert_array_equal(downloaded(gpu, memory), host)


def test_a_closed_graph_is_not_launched(driver: FakeDriver, stream: Stream, memory: DeviceMemory) -> None:
    with stream.capture() as graph:
        stream.fill(memory.address, BYTES, 7)
    graph.close()
    graph.close()
    with pytest.raises(BackendRunError, match="before the end of its recording or after it was closed"):
        graph.launch(stream)
    with pytest.raises(BackendRunError, match="before the end of its recording"):
        Graph().launch(stream)


def test_what_is_closed_is_not_used(gpu: Gpu, memory: DeviceMemory) -> None:
    stream, event = gpu.stream(), gpu.event()
    stream.close()
    event.close()
    with pytest.raises(BackendRunError, match="stream used after it was closed"):
        stream.fill(memory.address, BYTES, 0)
    with pytest.raises(BackendRunError, match="event used after it was closed"):
        gpu.stream().wait(event)


def test_copies_past_the_end_are_refused(driver: FakeDriver, stream: Stream, memory: DeviceMemory) -> None:
    host = np.zeros(2 * BYTES, np.uint8)
    attempts = (
        lambda: stream.copy_in(memory.address + 1, host.ctypes.data, BYTES),
        lambda: stream.copy_out(host.ctypes.data, memory.address, BYTES + 1),
        lambda: stream.copy(memory.address, host.ctypes.data, 1),
        lambda: stream.fill(memory.address - 1, 1, 0),
        lambda: stream.copy_in(memory.address, memory.address, 1),
    )
    for attempt in attempts:
        with pytest.raises(BackendRunError, match="CUDA_ERROR_INVALID_VALUE"):
            attempt()


def test_threads_record_and_work_at_the_same_time(gpu: Gpu) -> None:
    """Each with its own stream and memory; one records graphs while the others allocate and wait."""
    wrong: list[object] = []

    def work(number: int) -> None:
        memory, host, stream = gpu.allocate(BYTES), gpu.pinned(BYTES), gpu.stream()
        for repeat in range(20):
            with stream.capture() as graph:
                stream.fill(memory.address, BYTES, number)
                stream.copy_out(host.address, memory.address, BYTES)
            gpu.allocate(repeat + 1).close()
            graph.launch(stream)
            stream.synchronize()
            if (host.array != number).any():
                wrong.append((number, repeat))

    threads = [Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_callers_context_stays_current(driver: FakeDriver, gpu: Gpu) -> None:
    from cuda.bindings import driver as cuda

    with driver.other_context():
        before = int(cuda.cuCtxGetCurrent()[1])
        memory = gpu.allocate(BYTES)
        with gpu.current():
            assert int(cuda.cuCtxGetCurrent()[1]) != before
        assert int(cuda.cuCtxGetCurrent()[1]) == before
    assert gpu.reaches(memory.address)


def test_python_takes_its_place_in_a_stream(driver: FakeDriver, gpu: Gpu, stream: Stream, memory: DeviceMemory) -> None:
    """What the tests of the pipeline put where engines would be."""
    seen: list[int] = []
    view = driver.peek(memory.address, (BYTES,), np.uint8)

    def double() -> None:
        seen.append(int(view[0]))
        view[:] *= 2

    with stream.capture() as graph:
        driver.put(stream, double)
        stream.fill(memory.address, 1, 9)
    stream.fill(memory.address, BYTES, 3)
    graph.launch(stream)
    graph.launch(stream)
    assert seen == []
    stream.synchronize()
    assert seen == [3, 9]
    assert list(view[:2]) == [9, 12]


def test_the_default_stream_is_a_stream_too(driver: FakeDriver, gpu: Gpu, memory: DeviceMemory) -> None:
    default, other = gpu.adopt(0), gpu.stream()
    mark = gpu.event()
    default.fill(memory.address, BYTES, 1)
    default.record(mark)
    other.wait(mark)
    other.fill(memory.address, 1, 2)
    other.synchronize()
    assert list(driver.peek(memory.address, (2,), np.uint8)) == [2, 1]

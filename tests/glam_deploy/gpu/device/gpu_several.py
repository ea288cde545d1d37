"""Several GPUs in one process: each call reaches its own, in any thread. Run by test_on_fake_gpu.py with three.

What the stand-in refuses is what the CUDA C++ Programming Guide says of several devices ("Stream and Event Behavior"):
a kernel needs the current device, its stream and its module to be one device, an event that of its stream.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fake_cuda.control import FakeDriver

from glam_deploy.errors import BackendRunError, BackendUnavailable
from glam_deploy.gpu.device.driver import call
from glam_deploy.gpu.device.gpu import Gpu, gpu_count
from glam_deploy.gpu.device.kernel import Kernel, compile_cubin

TOYS = Path(__file__).with_name("toys.cu")
ONE, FOUR = (1, 1, 1), (4, 1, 1)
VALUES = np.arange(4, dtype=np.float32)


@pytest.fixture(autouse=True)
def repaired(driver: FakeDriver) -> Iterator[None]:
    yield
    driver.repair()


@pytest.fixture(scope="module")
def gpus() -> list[Gpu]:
    return [Gpu(index) for index in range(3)]


@pytest.fixture(scope="module")
def scale(gpus: list[Gpu]) -> list[Kernel]:
    """The kernel of toys.cu on each GPU."""
    cubin = compile_cubin(TOYS.read_text(), architecture=gpus[0].architecture, name=TOYS.name)
    return [gpu.load(cubin).kernel("scale") for gpu in gpus]


def test_their_number_and_names(gpus: list[Gpu]) -> None:
    assert gpu_count() == 3
    assert [gpu.index for gpu in gpus] == [0, 1, 2]
    assert gpus[1].uuid == "GPU-08080808-0808-0808-0808-080808080808"
    assert len({gpu.uuid for gpu in gpus}) == 3
    with pytest.raises(BackendUnavailable, match="there is no GPU 3: this machine has 3 GPUs, counted from 0"):
        Gpu(3)


def test_memory_is_of_one_gpu(gpus: list[Gpu], driver: FakeDriver) -> None:
    before = [gpu.used_bytes for gpu in gpus], [driver.live(device=n) for n in range(3)]
    memory = gpus[1].allocate(5000)
    assert [gpu.used_bytes - used for gpu, used in zip(gpus, before[0], strict=True)] == [0, 5000, 0]
    assert [driver.live(device=n) - live for n, live in enumerate(before[1])] == [0, 1, 0]
    assert [gpu.reaches(memory.address) for gpu in gpus] == [False, True, False]
    with gpus[2].current():  # as in a thread that works with another one
        memory.close()
    assert gpus[1].used_bytes == before[0][1]


def scaled(gpu: Gpu, kernel: Kernel, factor: float) -> np.ndarray:
    """4 numbers through a kernel of one GPU, recorded as a graph and launched."""
    given, found, stream = gpu.allocate(16), gpu.allocate(16), gpu.stream()
    host = np.empty(4, np.float32)
    stream.copy_in(given.address, VALUES.ctypes.data, 16)
    with stream.capture() as graph:
        stream.launch(kernel, ONE, FOUR, given.address, found.address, np.float32(factor), np.int32(4))
    graph.launch(stream)
    with gpu.event(timing=True) as began, gpu.event(timing=True) as ended:
        stream.record(began)
        stream.copy_out(host.ctypes.data, found.address, 16)
        stream.record(ended)
        stream.synchronize()
        assert ended.milliseconds_since(began) >= 0
    return host


def test_threads_that_change_from_one_to_the_other(gpus: list[Gpu], scale: list[Kernel]) -> None:
    def work(number: int) -> None:
        own, other = number % 3, (number + 1) % 3
        with gpus[other].current():  # of another library
            np.testing.assert_array_equal(scaled(gpus[own], scale[own], number), VALUES * number)
            assert int(call("cuCtxGetDevice")) == other

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(24)))


def test_a_gpu_waits_for_the_work_of_another(gpus: list[Gpu], driver: FakeDriver) -> None:
    """The guide: cuStreamWaitEvent succeeds with an event of another device."""
    first, second, order = gpus[0].stream(), gpus[1].stream(), list[int]()
    driver.put(first, lambda: order.append(0))
    event = gpus[0].event()
    first.record(event)
    second.wait(event)
    driver.put(second, lambda: order.append(1))
    second.synchronize()
    assert order == [0, 1]


Mistake = Callable[[Gpu, Gpu, list[Kernel]], object]


def other_memory(own: Gpu, other: Gpu, scale: list[Kernel]) -> None:
    own.stream().copy_in(other.allocate(16).address, VALUES.ctypes.data, 16)


def other_fill(own: Gpu, other: Gpu, scale: list[Kernel]) -> None:
    own.stream().fill(other.allocate(16).address, 16, 0)


def other_event(own: Gpu, other: Gpu, scale: list[Kernel]) -> None:
    own.stream().record(other.event())


def other_module(own: Gpu, other: Gpu, scale: list[Kernel]) -> None:
    memory = own.allocate(16).address
    own.stream().launch(scale[other.index], ONE, FOUR, memory, memory, np.float32(1), np.int32(4))


def other_current(own: Gpu, other: Gpu, scale: list[Kernel]) -> None:
    kernel, stream, memory = scale[own.index], own.stream(), own.allocate(16).address
    values = kernel.packed([memory, memory, np.float32(1), np.int32(4)])
    addresses = np.array([value.ctypes.data for value in values], np.uintp)
    with other.current():
        call("cuLaunchKernel", kernel.handle, *ONE, *FOUR, 0, stream.handle, addresses.ctypes.data, 0)


@pytest.mark.parametrize(
    ("mistake", "status"),
    [
        (other_memory, "INVALID_VALUE"),
        (other_fill, "INVALID_VALUE"),
        (other_event, "INVALID_HANDLE"),
        (other_module, "INVALID_HANDLE"),
        (other_current, "INVALID_HANDLE"),
    ],
)
def test_what_is_of_another_gpu_is_refused(gpus: list[Gpu], scale: list[Kernel], mistake: Mistake, status: str) -> None:
    with pytest.raises(BackendRunError, match=f"failed with CUDA_ERROR_{status}"):
        mistake(gpus[1], gpus[2], scale)


def test_a_stream_of_another_gpu_is_not_adopted(gpus: list[Gpu]) -> None:
    with pytest.raises(BackendRunError, match="belongs to another CUDA context, expected GPU 1's primary context"):
        gpus[1].adopt(gpus[2].stream())


def test_a_kernel_cannot_read_memory_of_another_gpu(gpus: list[Gpu], scale: list[Kernel]) -> None:
    own, other, stream = gpus[1].allocate(16), gpus[2].allocate(16), gpus[1].stream()
    stream.launch(scale[1], ONE, FOUR, other.address, own.address, np.float32(1), np.int32(4))
    with pytest.raises(BackendRunError, match="cuStreamSynchronize failed with CUDA_ERROR_ILLEGAL_ADDRESS"):
        stream.synchronize()

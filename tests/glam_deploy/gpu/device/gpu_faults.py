"""What breaks a GPU for the process, and that the fake one is as strict. Run by test_on_fake_gpu.py."""

from collections.abc import Iterator

import numpy as np
import pytest
from fake_cuda.control import FakeDriver

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.kernel import Module

ONE = (1, 1, 1)
LOST = r"CUDA_ERROR_ILLEGAL_ADDRESS \(700\)\. This process cannot use the GPU any more: restart it"


@pytest.fixture(autouse=True)
def repaired(driver: FakeDriver) -> Iterator[None]:
    yield
    driver.repair()


@pytest.mark.parametrize("index", [10, -1, 1 << 40, 1024], ids=["just behind", "just before", "far", "next page"])
def test_a_kernel_that_writes_where_nothing_is(gpu: Gpu, toys: Module, index: int) -> None:
    memory, stream = gpu.allocate(4096 if index == -1 else 40), gpu.stream()
    stream.launch(toys.kernel("stray"), ONE, ONE, memory.address, np.int64(index))
    for _ in range(2):
        with pytest.raises(BackendRunError, match="cuStreamSynchronize failed with " + LOST):
            stream.synchronize()
    with pytest.raises(BackendRunError, match="cuMemAlloc failed with " + LOST):
        gpu.allocate(1)


def test_what_is_left_of_a_lost_gpu_goes_in_silence(gpu: Gpu, toys: Module, capfd: pytest.CaptureFixture[str]) -> None:
    memory, stream = gpu.allocate(40), gpu.stream()
    stream.launch(toys.kernel("stray"), ONE, ONE, memory.address, np.int64(10))
    with pytest.raises(BackendRunError):
        stream.synchronize()
    capfd.readouterr()
    del memory, stream
    assert capfd.readouterr() == ("", "")


def test_a_graph_over_memory_that_went(gpu: Gpu, toys: Module) -> None:
    memory, stream = gpu.allocate(40), gpu.stream()
    with stream.capture() as graph:
        stream.fill(memory.address, 40, 0)
    memory.close()
    graph.launch(stream)
    with pytest.raises(BackendRunError, match=LOST):
        stream.synchronize()


def test_a_graph_over_a_kernel_whose_memory_went(gpu: Gpu, toys: Module) -> None:
    memory, stream, kernel = gpu.allocate(40), gpu.stream(), toys.kernel("stray")
    with stream.capture() as graph:
        stream.launch(kernel, ONE, ONE, memory.address, np.int64(0))
    graph.launch(stream)
    stream.synchronize()
    memory.close()
    graph.launch(stream)
    with pytest.raises(BackendRunError, match=LOST):
        stream.synchronize()


def test_memory_is_not_freed_under_work(gpu: Gpu) -> None:
    """A real driver waits for the GPU instead, and nobody sees why it is slow."""
    memory, stream = gpu.allocate(40), gpu.stream()
    stream.fill(memory.address, 40, 0)
    with pytest.raises(BackendRunError, match="cuMemFree failed with CUDA_ERROR_INVALID_VALUE"):
        memory.close()


def test_fresh_memory_holds_no_zeros(driver: FakeDriver, gpu: Gpu) -> None:
    memory = gpu.allocate(1000)
    assert (driver.peek(memory.address, (1000,), np.uint8) == 0xA5).all()

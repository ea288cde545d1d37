"""Kernels and their arguments. Run by test_on_fake_gpu.py."""

from typing import Any

import numpy as np
import pytest
from fake_cuda.control import FakeDriver

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.kernel import Module, compile_cubin

SCALARS: tuple[np.generic, ...] = (
    np.bool_(True),
    np.int8(-100),
    np.uint8(200),
    np.int16(-30000),
    np.uint16(60000),
    np.int32(-2_000_000_000),
    np.uint32(4_000_000_000),
    np.int64(-(2**52)),
    np.uint64(2**53),
    np.float32(0.1),
    np.float64(0.1),
)
ONE = (1, 1, 1)


def result(gpu: Gpu, toys: Module, name: str, shape: tuple[int, ...], dtype: Any, *launch: Any) -> np.ndarray:
    """What a kernel writes whose first argument is where to."""
    out = np.empty(shape, dtype)
    memory, stream = gpu.allocate(out.nbytes), gpu.stream()
    grid, block, *rest = launch
    stream.launch(toys.kernel(name), grid, block, memory.address, *rest)
    stream.copy_out(out.ctypes.data, memory.address, out.nbytes)
    stream.synchronize()
    return out


def test_every_kind_of_scalar_arrives(gpu: Gpu, toys: Module) -> None:
    found = result(gpu, toys, "tell", (11,), np.float64, ONE, ONE, *SCALARS)
    assert found.tolist() == [float(value) for value in SCALARS]


def test_sizes_of_parameters_come_from_the_machine_code(toys: Module) -> None:
    assert toys.kernel("tell").sizes == (8, 1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8)
    assert toys.kernel("nothing").sizes == ()


def test_grid_and_block_arrive_in_their_order(gpu: Gpu, toys: Module) -> None:
    found = result(gpu, toys, "where", (24, 8), np.uint32, (2, 3, 4), (4, 2, 1))
    assert found.tolist() == [[block * 1000 + thread for thread in range(8)] for block in range(24)]


def test_arguments_are_copied_when_launched(driver: FakeDriver, gpu: Gpu, toys: Module) -> None:
    values = np.arange(4, dtype=np.float32)
    memory, out, stream = gpu.allocate(16), np.empty(4, np.float32), gpu.stream()
    at = memory.address
    stream.copy_in(at, values.ctypes.data, 16)
    for factor in (2, 3):
        stream.launch(toys.kernel("scale"), ONE, (4, 1, 1), at, at, np.float32(factor), np.int32(4))
    stream.copy_out(out.ctypes.data, at, 16)
    assert out.tolist() == [0, 6, 12, 18]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, 2, np.float32(1)), r"the arguments are \['uint64 \(8\)', "),
        ((1, 2, np.float64(1), np.int32(1)), r"'float64 \(8\)', 'int32 \(4\)'\]"),
        ((1, 2, np.float32(1), 4), r"'float32 \(4\)', 'uint64 \(8\)'\]"),
        ((1, 2, 0.5, np.int32(1)), "kernel argument is 0.5, expected a numpy scalar"),
        ((1, 2, True, np.int32(1)), "kernel argument is True, expected"),
        ((1, np.zeros(1), np.float32(1), np.int32(1)), "expected a numpy scalar"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(gpu: Gpu, toys: Module, arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(BackendRunError, match=words):
        gpu.stream().launch(toys.kernel("scale"), ONE, ONE, *arguments)


@pytest.mark.parametrize(
    ("grid", "block"), [((0, 1, 1), ONE), ((1, 70000, 1), ONE), (ONE, (2048, 1, 1)), (ONE, (1, 0, 1))]
)
def test_launches_that_no_gpu_can_do(gpu: Gpu, toys: Module, grid: Any, block: Any) -> None:
    with pytest.raises(BackendRunError, match=r"cuLaunchKernel failed with CUDA_ERROR_INVALID_VALUE"):
        gpu.stream().launch(toys.kernel("nothing"), grid, block)


def test_an_unknown_kernel_is_refused(toys: Module) -> None:
    with pytest.raises(BackendRunError, match=r"cuModuleGetFunction failed with CUDA_ERROR_NOT_FOUND \(500\)"):
        toys.kernel("sclae")


def test_code_for_another_gpu_is_refused(gpu: Gpu) -> None:
    cubin = compile_cubin('extern "C" __global__ void nothing() {}', architecture="sm_120", name="toys")
    with pytest.raises(BackendRunError, match=r"CUDA_ERROR_NO_BINARY_FOR_GPU \(209\)\. The kernels were compiled"):
        gpu.load(cubin)


def test_code_that_is_none_is_refused(gpu: Gpu) -> None:
    with pytest.raises(BackendRunError, match="CUDA_ERROR_INVALID_IMAGE"):
        gpu.load(b"\x7fELF" + bytes(100))


def test_code_stays_loaded_while_a_kernel_is_held(driver: FakeDriver, gpu: Gpu) -> None:
    source = 'extern "C" __global__ void nothing() {}'
    module = gpu.load(compile_cubin(source, architecture=gpu.architecture, name="toys"))
    kernel, before = module.kernel("nothing"), driver.count("cuModuleUnload")
    del module
    assert driver.count("cuModuleUnload") == before
    del kernel
    assert driver.count("cuModuleUnload") == before + 1

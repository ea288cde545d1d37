"""PyCUDA, CuPy, torch and numba give and take arrays and streams, each where it is installed and a real GPU is.

On a machine with a GPU: PYTHONPATH=tests python -m pytest -p fake_cuda.plugin tests/glam_deploy/gpu/device/gpu_*.py
"""

from typing import Any, Protocol

import numpy as np
import pytest
from fake_cuda import plugin

from glam_deploy.gpu.device.arrays import DeviceArray, as_device_array
from glam_deploy.gpu.device.gpu import Gpu

pytestmark = pytest.mark.skipif(plugin.DRIVER is not None, reason="libraries need a real GPU")
SHAPE = (2, 3, 4)
VALUES = np.arange(24, dtype=np.float32).reshape(SHAPE)


class Library(Protocol):
    """What another library does in these tests."""

    def __init__(self) -> None:
        """Skips where the library is not installed."""

    def given(self) -> Any:
        """VALUES on the GPU, as the library has them."""

    def taken(self, array: DeviceArray) -> np.ndarray:
        """Our array, taken without a copy, then read by the library."""

    def stream(self) -> Any:
        """A new stream, as its users would hand it on."""


class Torch:
    def __init__(self) -> None:
        self.torch = pytest.importorskip("torch")
        if not self.torch.cuda.is_available():
            pytest.skip("torch is built without CUDA")

    def given(self) -> Any:
        return self.torch.from_numpy(VALUES.copy()).cuda()

    def taken(self, array: DeviceArray) -> np.ndarray:
        tensor = self.torch.from_dlpack(array)
        assert tensor.data_ptr() == array.address
        return tensor.cpu().numpy()

    def stream(self) -> Any:
        self.kept = self.torch.cuda.Stream()
        return self.kept.cuda_stream


class CuPy:
    def __init__(self) -> None:
        self.cupy = pytest.importorskip("cupy")

    def given(self) -> Any:
        return self.cupy.asarray(VALUES)

    def taken(self, array: DeviceArray) -> np.ndarray:
        for theirs in (self.cupy.from_dlpack(array), self.cupy.asarray(array)):
            assert theirs.data.ptr == array.address
        return self.cupy.asnumpy(theirs)

    def stream(self) -> Any:
        return self.cupy.cuda.Stream(non_blocking=True)


class Numba:
    def __init__(self) -> None:
        self.cuda = pytest.importorskip("numba.cuda")

    def given(self) -> Any:
        return self.cuda.to_device(VALUES)

    def taken(self, array: DeviceArray) -> np.ndarray:
        theirs = self.cuda.as_cuda_array(array)
        assert theirs.__cuda_array_interface__["data"][0] == array.address
        return theirs.copy_to_host()

    def stream(self) -> Any:
        self.kept = self.cuda.stream()
        return int(self.kept)


class PyCuda:
    def __init__(self) -> None:
        pytest.importorskip("pycuda.autoprimaryctx")
        from pycuda import driver, gpuarray

        self.driver, self.gpuarray = driver, gpuarray

    def given(self) -> Any:
        return self.gpuarray.to_gpu(VALUES)

    def taken(self, array: DeviceArray) -> np.ndarray:
        """PyCUDA takes no protocol, only an address; so the stream is waited for."""
        assert array.stream is not None
        array.stream.synchronize()
        return self.gpuarray.GPUArray(array.shape, array.dtype, gpudata=array.address).get()

    def stream(self) -> Any:
        self.kept = self.driver.Stream()
        return self.kept.handle


@pytest.fixture(params=[Torch, CuPy, Numba, PyCuda])
def library(request: pytest.FixtureRequest, gpu: Gpu) -> Library:
    made: Library = request.param()
    return made


def test_it_gives(gpu: Gpu, library: Library) -> None:
    stream, host = gpu.stream(), np.empty_like(VALUES)
    taken = as_device_array(library.given(), gpu=gpu, stream=stream, dtype=np.float32, shape=SHAPE)
    stream.copy_out(host.ctypes.data, taken.address, taken.nbytes)
    stream.synchronize()
    np.testing.assert_array_equal(host, VALUES)


def test_it_takes(gpu: Gpu, library: Library) -> None:
    stream, memory = gpu.stream(), gpu.allocate(VALUES.nbytes)
    stream.copy_in(memory.address, VALUES.ctypes.data, VALUES.nbytes)
    array = DeviceArray(gpu=gpu, address=memory.address, shape=SHAPE, dtype=VALUES.dtype, owner=memory, stream=stream)
    np.testing.assert_array_equal(library.taken(array), VALUES)


def test_its_stream_is_used(gpu: Gpu, library: Library) -> None:
    memory, host = gpu.allocate(VALUES.nbytes), np.empty_like(VALUES)
    theirs = library.stream()
    stream = gpu.adopt(theirs)
    stream.copy_in(memory.address, VALUES.ctypes.data, VALUES.nbytes)
    stream.copy_out(host.ctypes.data, memory.address, VALUES.nbytes)
    stream.synchronize()
    np.testing.assert_array_equal(host, VALUES)

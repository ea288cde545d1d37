"""Other libraries for GPU arrays, each behind the same few calls, and what must hold with every one of them.

Each works in a stream of its own that is not the default one, so that an order which is missing shows.
"""

from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from glam_deploy.gpu.device.arrays import DeviceArray
from glam_deploy.runtime.pipeline import Pipeline

TOLERANCE = 1e-6
"""A run and its repetition on the same machine; the fused map once by the kernel, once by numpy."""


class Library(Protocol):
    """What a user does with it."""

    @property
    def stream(self) -> object:
        """Its stream, as `slot.run` takes it."""

    def write(self, array: DeviceArray, values: np.ndarray) -> None:
        """Into our array, through a view of it, in the library's stream."""

    def read(self, array: DeviceArray) -> np.ndarray:
        """From our array, through a view of it, in the library's stream."""

    def array(self, values: np.ndarray) -> object:
        """An array of its own on the GPU."""


class Torch:
    """DLPack."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._stream = torch.cuda.Stream()

    @property
    def stream(self) -> object:
        return self._stream.cuda_stream

    def write(self, array: DeviceArray, values: np.ndarray) -> None:
        with self._torch.cuda.stream(self._stream):
            self._torch.from_dlpack(array).copy_(self._torch.from_numpy(values))

    def read(self, array: DeviceArray) -> np.ndarray:
        with self._torch.cuda.stream(self._stream):
            return np.asarray(self._torch.from_dlpack(array).cpu().numpy())

    def array(self, values: np.ndarray) -> object:
        return self._torch.from_numpy(values).cuda()


class CuPy:
    """DLPack in, the CUDA Array Interface out."""

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)

    @property
    def stream(self) -> object:
        return self._stream.ptr

    def write(self, array: DeviceArray, values: np.ndarray) -> None:
        with self._stream:
            self._cupy.from_dlpack(array)[...] = self._cupy.asarray(values)

    def read(self, array: DeviceArray) -> np.ndarray:
        with self._stream:
            return np.asarray(self._cupy.asnumpy(self._cupy.asarray(array)))

    def array(self, values: np.ndarray) -> object:
        return self._cupy.asarray(values)


class Numba:
    """The CUDA Array Interface."""

    def __init__(self) -> None:
        from numba import cuda

        self._cuda = cuda
        self._stream = cuda.stream()

    @property
    def stream(self) -> object:
        handle = self._stream.handle  # a ctypes pointer or an object of cuda.bindings, by release
        return int(getattr(handle, "value", handle))

    def write(self, array: DeviceArray, values: np.ndarray) -> None:
        self._cuda.as_cuda_array(array).copy_to_device(values, stream=self._stream)

    def read(self, array: DeviceArray) -> np.ndarray:
        values = np.asarray(self._cuda.as_cuda_array(array).copy_to_host(stream=self._stream))
        self._stream.synchronize()
        return values

    def array(self, values: np.ndarray) -> object:
        return self._cuda.to_device(values)


class PyCuda:
    """Bare addresses in, its own arrays' CUDA Array Interface out. It must be told to use the primary context."""

    def __init__(self) -> None:
        import pycuda.autoprimaryctx  # noqa: F401 - makes the primary context current
        from pycuda import driver, gpuarray

        self._driver, self._gpuarray = driver, gpuarray
        self._stream = driver.Stream()

    @property
    def stream(self) -> object:
        return self._stream.handle

    def write(self, array: DeviceArray, values: np.ndarray) -> None:
        self._driver.memcpy_htod_async(array.address, values, self._stream)

    def read(self, array: DeviceArray) -> np.ndarray:
        self._stream.synchronize()
        lent = self._gpuarray.GPUArray(array.shape, array.dtype, gpudata=array.address)
        return np.asarray(lent.get())

    def array(self, values: np.ndarray) -> object:
        return self._gpuarray.to_gpu(values)


LIBRARIES = {"torch": Torch, "cupy": CuPy, "numba": Numba, "pycuda": PyCuda}


def missing(name: str) -> str:
    """What this machine lacks of a library, beside the GPU; empty where nothing."""
    if find_spec(name) is None:
        return name
    if name == "torch":
        import torch

        return "" if torch.cuda.is_available() else "a torch that was built for CUDA"
    return ""


def check_writing_and_reading(library: Library, pipeline: Pipeline, images: list[np.ndarray]) -> None:
    """Images go into the slot and maps come out of it with one stream, and are those of the pipeline's own way."""
    with pipeline.slot() as slot:
        for image in images:
            library.write(slot.image, image[None, None])
            slot.run(library.stream)
            found = library.read(slot.saliency)
            places, scores = library.read(slot.patch_locations), library.read(slot.y_global)
            np.testing.assert_array_equal(library.read(slot.image)[0, 0], image)
            _compare(pipeline(image), found, places, scores)


def check_loading(library: Library, pipeline: Pipeline, images: list[np.ndarray]) -> None:
    """An array of the library is loaded into the slot, also where nobody has waited for it."""
    with pipeline.slot() as slot:
        for image in images:
            slot.load(library.array(image[None, None]))
            slot.run()
            result = slot.result()
            _compare(pipeline(image), result.saliency()[None], result.patch_locations[None], result.y_global[None])


def _compare(expected: Any, saliency: np.ndarray, places: np.ndarray, scores: np.ndarray) -> None:
    used = len(expected.patch_locations)
    np.testing.assert_array_equal(places[0, :used], expected.patch_locations)
    np.testing.assert_allclose(scores[0], expected.y_global, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(saliency[0], expected.saliency(), rtol=0, atol=TOLERANCE)

"""A GPU with the kernels loaded and a stream, and copies of arrays to it and from it."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from glam_deploy.gpu.device.context import DeviceMemory
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.kernel import compile_cubin
from glam_deploy.gpu.engines.base import head_kernels
from glam_deploy.gpu.kernels import launch
from glam_deploy.gpu.kernels.source import source
from glam_deploy.networks import GLAM
from glam_deploy.records import Float32


def compiled(gpu: Gpu) -> bytes:
    """GLAM's kernels, compiled from their source for this card, so that no bundle is needed to check them."""
    return compile_cubin(source(GLAM), architecture=gpu.architecture, name="glam_deploy/gpu/kernels")


def random_weights() -> dict[str, Float32]:
    """Weights of GLAM's fusion head with which neither softmax nor sigmoid saturates."""
    rng = np.random.default_rng(6)
    return {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in GLAM.fusion_weights.items()}


class Bench:
    """The kernels on one GPU."""

    def __init__(self, index: int) -> None:
        self.gpu = Gpu(index)
        self.stream = self.gpu.stream()
        module = self.gpu.load(compiled(self.gpu))
        self.kernels = launch.Kernels(module, GLAM)
        self.head = head_kernels(module, GLAM, random_weights(), self.gpu)

    def upload(self, array: NDArray[Any]) -> DeviceMemory:
        """A copy on the GPU, there when this returns."""
        flat = np.ascontiguousarray(array)
        memory = self.gpu.allocate(flat.nbytes)
        self.stream.copy_in(memory.address, flat.ctypes.data, flat.nbytes)
        self.stream.synchronize()
        return memory

    def poisoned(self, nbytes: int) -> DeviceMemory:
        """Memory filled with NaN (as floats) or -1 (as integers): values that a kernel does not write are found."""
        memory = self.gpu.allocate(nbytes)
        self.stream.fill(memory.address, nbytes, 0xFF)
        return memory

    def scratch(self, n: int) -> DeviceMemory:
        """Zeroed scratch memory of the kernels for `n` images."""
        memory = self.gpu.allocate(launch.scratch_bytes(n, GLAM))
        self.stream.fill(memory.address, memory.nbytes, 0)
        return memory

    def download(self, memory: DeviceMemory, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """The beginning of some memory as an array, once all work in the stream is done."""
        array = np.empty(shape, dtype)
        self.stream.copy_out(array.ctypes.data, memory.address, array.nbytes)
        self.stream.synchronize()
        return array

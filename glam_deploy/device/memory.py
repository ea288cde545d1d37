"""Device memory and pinned host memory: allocated once, at addresses that never change."""

import numpy as np
from numpy.typing import NDArray

from glam_deploy.device.context import Context, Resource
from glam_deploy.device.driver import bindings
from glam_deploy.errors import BackendRunError

ALIGNMENT = 512
"""Bytes that every allocation is aligned to: the alignment of textures, which is 512 on every GPU so far and which
TensorRT demands for scratch. (The CUDA C++ Programming Guide promises 256; drivers give 512 and more.)"""


class DeviceMemory(Resource):
    """Bytes on the GPU, of no defined content."""

    def __init__(self, context: Context, nbytes: int) -> None:
        self.nbytes = _positive(nbytes)
        pointer = context.call("cuMemAlloc", nbytes)
        self.address = int(pointer)
        """Device address, a multiple of ALIGNMENT."""
        super().__init__(context, pointer, release="cuMemFree")


class PinnedMemory(Resource):
    """Host bytes that the GPU copies from and to without the host's help. Of no defined content."""

    def __init__(self, context: Context, nbytes: int) -> None:
        self.nbytes = _positive(nbytes)
        flags = bindings().CU_MEMHOSTALLOC_PORTABLE
        self.address: int = context.call("cuMemHostAlloc", nbytes, flags)
        """Host address, a multiple of ALIGNMENT."""
        super().__init__(context, self.address, release="cuMemFreeHost")

    @property
    def __array_interface__(self) -> dict[str, object]:
        return {"shape": (self.nbytes,), "typestr": "|u1", "data": (self.address, False), "version": 3}

    @property
    def array(self) -> NDArray[np.uint8]:
        """All bytes, as uint8, without a copy. Views keep this object, and so the memory, until `close`."""
        return np.asarray(self)


def _positive(nbytes: int) -> int:
    if nbytes <= 0:
        raise BackendRunError(f"{nbytes} bytes of memory were asked for, expected at least 1")
    return nbytes

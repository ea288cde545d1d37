"""Arrays in GPU memory, exchanged with other libraries (PyCUDA, CuPy, torch, numba) without a copy.

Protocols: CUDA Array Interface 3 (numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html) and DLPack
(dmlc.github.io/dlpack/latest). Both synchronize the streams of the two libraries on the GPU, without the host.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.driver import cuda_core
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream

CUDA_DEVICE = 2
"""DLPack's kDLCUDA."""
LEGACY_DEFAULT = 1
"""Number of the legacy default stream in both protocols."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceArray:
    """A C-contiguous array in the memory of a GPU."""

    gpu: Gpu
    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object = field(repr=False)
    """Object that keeps the memory allocated as long as this array or an array made from it exists."""
    stream: Stream | None = None
    """Stream that writes this array, for which readers wait; None if no write is pending."""

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": None if self.stream is None else self.stream.handle or LEGACY_DEFAULT,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA_DEVICE, self.gpu.index

    def __dlpack__(self, *, stream: int | None = None, **wishes: Any) -> Any:
        """DLPack capsule. `stream`: the consumer's stream in DLPack's numbering for CUDA, -1 for no synchronization.

        `wishes`: the other arguments of DLPack 1.0.
        """
        if self.stream is not None and stream != -1:
            self.gpu.adopt(LEGACY_DEFAULT if stream is None else stream).follow(self.stream)
        core = cuda_core()
        with self.gpu.current():
            buffer = core.Buffer.from_handle(self.address, self.nbytes, owner=self)
            view = core.utils.StridedMemoryView.from_buffer(buffer, self.shape, dtype=self.dtype)
            return view.__dlpack__(stream=-1, **wishes)


def as_device_array(
    array: object, *, gpu: Gpu, stream: Stream, dtype: DTypeLike, shape: tuple[int, ...]
) -> DeviceArray:
    """Convert another library's array without a copy; `stream` then waits on the GPU for pending writes to it.

    Uses DLPack, or the CUDA Array Interface if the array has no DLPack. Raises BackendRunError, with the type of the
    array, unless it is in the memory of `gpu`, has this dtype and shape, and is C-contiguous.
    """
    kind = type(array)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if hasattr(array, "__dlpack__"):
        found = _from_dlpack(array, name, gpu, stream)
    elif hasattr(array, "__cuda_array_interface__"):
        found = _from_interface(array, name, gpu, stream)
    else:
        raise BackendRunError(f"{name} is not a GPU array: it has neither __dlpack__ nor __cuda_array_interface__")
    if (found.dtype, found.shape) != (np.dtype(dtype), shape):
        raise BackendRunError(f"{name} is {found.dtype} {list(found.shape)}, expected {np.dtype(dtype)} {list(shape)}")
    if not gpu.reaches(found.address):
        raise BackendRunError(
            f"{name} at {found.address:#x} is not in memory of GPU {gpu.index}'s primary context. Create it on that "
            f"GPU; with PyCUDA, after `import pycuda.autoprimaryctx`."
        )
    return found


def _from_dlpack(array: Any, name: str, gpu: Gpu, stream: Stream) -> DeviceArray:
    device = tuple(map(int, array.__dlpack_device__()))
    if device != (CUDA_DEVICE, gpu.index):
        raise BackendRunError(f"{name} is on DLPack device {device}, expected {(CUDA_DEVICE, gpu.index)} (CUDA)")
    with gpu.current():
        view = cuda_core().utils.StridedMemoryView.from_dlpack(array, stream_ptr=stream.handle or LEGACY_DEFAULT)
    strides = view.strides and [stride * view.dtype.itemsize for stride in view.strides]
    _require_contiguous(view.shape, strides, view.dtype, name)
    return DeviceArray(gpu=gpu, address=view.ptr, shape=tuple(view.shape), dtype=view.dtype, owner=view, stream=stream)


def _from_interface(array: Any, name: str, gpu: Gpu, stream: Stream) -> DeviceArray:
    found = array.__cuda_array_interface__
    dtype, shape = np.dtype(found["typestr"]), tuple(found["shape"])
    _require_contiguous(shape, found.get("strides"), dtype, name)
    if found.get("mask") is not None:
        raise BackendRunError(f"{name} is a masked array, expected an array without mask: fill it first")
    if (producer := found.get("stream")) is not None:
        stream.follow(gpu.adopt(producer))
    return DeviceArray(gpu=gpu, address=found["data"][0], shape=shape, dtype=dtype, owner=array, stream=stream)


def _require_contiguous(shape: tuple[int, ...], strides: Any, dtype: np.dtype[Any], name: str) -> None:
    """Raises BackendRunError unless `strides`, in bytes, are those of C order; None means C order.

    The stride of an axis of length 1 is ignored.
    """
    step = dtype.itemsize
    for size, stride in reversed(list(zip(shape, strides or (), strict=False))):
        if size != 1 and stride != step:
            raise BackendRunError(f"{name} {list(shape)} has strides {list(strides)}, expected C order: copy it first")
        step *= size

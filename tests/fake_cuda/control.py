"""The fake driver from inside a process that has it: what was called, what device memory holds, what else to do."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fake_cuda.build import LIBRARY
from glam_deploy.gpu.device.driver import bindings, call
from glam_deploy.gpu.device.stream import Stream

HOST, DEVICE = 1, 2
HOUSEKEEPING = {"cuCtxPushCurrent", "cuCtxPopCurrent", "cuCtxGetDevice", "cuThreadExchangeStreamCaptureMode"}
HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class FakeDriver:
    """The libcuda.so.1 of a process with the environment of `outside.environment`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._library.fake_cuda_log.restype = ctypes.c_char_p
        self._library.fake_cuda_count.restype = ctypes.c_ulonglong
        self._library.fake_cuda_live.restype = ctypes.c_size_t
        self._functions: list[Any] = []
        self.failures: list[BaseException] = []
        """What Python functions raised that were put into streams; a test that leaves any here fails."""

    @contextmanager
    def recorded(self) -> Iterator[list[str]]:
        """After the block, the list has a line for each call of the driver ("cuMemAlloc") and for each piece of work
        done ("> copy in", "> NAME" of a kernel), in order; all but HOUSEKEEPING."""
        lines: list[str] = []
        self._library.fake_cuda_record(1)
        try:
            yield lines
        finally:
            log = self._library.fake_cuda_log().decode().splitlines()
            lines += [line for line in log if line not in HOUSEKEEPING]
            self._library.fake_cuda_record(0)

    def count(self, name: str) -> int:
        """Calls of a driver function since the process began."""
        return int(self._library.fake_cuda_count(name.encode()))

    def live(self, kind: int = DEVICE, *, device: int | None = None) -> int:
        """Allocations that are not freed: DEVICE, or HOST for pinned memory; of all devices, or of one."""
        return int(self._library.fake_cuda_live(kind, -1 if device is None else device))

    def repair(self) -> None:
        """Forget an error that only a new process would end, and all work that was under way."""
        self._library.fake_cuda_repair()

    @staticmethod
    def peek(address: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Device memory as it is now, no copy: for tests, and for work that `put` puts into a stream."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_ubyte * nbytes).from_address(address), dtype).reshape(shape)

    def put(self, stream: Stream, work: Callable[[], None]) -> None:
        """Python in a stream, in its place among kernels and copies; recorded with them. Stands in for an engine.

        For CUDA it is a host function.
        """
        address = ctypes.cast(self._pointer(work), ctypes.c_void_p).value
        stream.context.call("cuLaunchHostFunc", stream.handle, bindings().CUhostFn(address), 0)

    def compute(self, stream: Stream, work: Callable[[], None]) -> None:
        """As `put`, but for CUDA it is a kernel. Raises RuntimeError with the number of a CUDA error."""
        if status := self._library.fake_cuda_compute(ctypes.c_void_p(stream.handle), self._pointer(work)):
            raise RuntimeError(f"CUDA failure {status}")

    def _pointer(self, work: Callable[[], None]) -> Any:
        """`work` as a host function, which is kept for as long as graphs may call it."""

        def function(_: object) -> None:
            try:
                work()
            except BaseException as error:
                self.failures.append(error)

        self._functions.append(pointer := HOST_FUNCTION(function))
        return pointer

    @staticmethod
    @contextmanager
    def other_context() -> Iterator[None]:
        """What is made inside the block belongs to another context than the primary one, as PyCUDA's by default."""
        call("cuCtxCreate", None, 0, call("cuDeviceGet", 0))
        try:
            yield
        finally:
            call("cuCtxPopCurrent")

"""The primary CUDA context of one GPU, in which all driver calls are made and counted; device and pinned memory."""

import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.driver import bindings, call

ALLOCATING = frozenset({"cuMemAlloc", "cuMemHostAlloc"})
SYNCHRONISING = frozenset({"cuStreamSynchronize", "cuEventSynchronize"})


ALIGNMENT = 512
"""Alignment of all allocations in bytes: the texture alignment, 512 on all GPUs so far, which TensorRT requires for
scratch memory. (The CUDA C++ Programming Guide guarantees 256; drivers align to 512 or more.)"""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of driver calls that must not occur between the upload of an image and its result."""

    allocations: int
    """Allocations of device or pinned memory."""
    synchronisations: int
    """Waits of the host for the GPU."""


class Context:
    """The primary context of a GPU, which all libraries of the process share. Thread-safe.

    It is retained once and released at the end of the process; no other context is created.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.handle = call("cuDevicePrimaryCtxRetain", call("cuDeviceGet", index))
        self._counted: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread inside the block; afterwards the previous context is current."""
        call("cuCtxPushCurrent", self.handle)
        try:
            yield
        finally:
            call("cuCtxPopCurrent")

    def call(self, name: str, *arguments: object, unless: str | None = None) -> Any:
        """Call `driver.call` with this context current, and count allocations and synchronizations."""
        if name in ALLOCATING or name in SYNCHRONISING:
            with self._lock:
                self._counted[name] += 1
        with self.current():
            return call(name, *arguments, unless=unless)

    @property
    def counts(self) -> Counts:
        """Numbers of calls so far with this context, from all threads."""
        with self._lock:
            counted = self._counted.copy()
        return Counts(
            allocations=sum(counted[name] for name in ALLOCATING),
            synchronisations=sum(counted[name] for name in SYNCHRONISING),
        )


class Resource:
    """A driver object that is released by `close`, or with the last reference to it.

    At the end of the process the driver releases all objects itself.
    """

    def __init__(self, context: Context, handle: Any, *, release: str | None) -> None:
        """`release`: name of the driver function that releases the handle; None if another library owns it."""
        self.context = context
        self._handle = handle
        self._finalizer = weakref.finalize(self, _release_quietly, context, release, handle)
        self._finalizer.atexit = False

    def close(self) -> None:
        """Release the object; further calls have no effect. Raises BackendRunError."""
        if alive := self._finalizer.detach():
            _, _, arguments, _ = alive
            _release(*arguments)

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return not self._finalizer.alive

    @property
    def handle(self) -> Any:
        """Driver handle. Raises BackendRunError after `close`, because the driver does not detect this error."""
        if self.closed:
            raise BackendRunError(f"{type(self).__name__.lower()} used after it was closed")
        return self._handle

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _release(context: Context, release: str | None, handle: Any) -> None:
    """Release a handle; allowed during stream capture in this thread, because the object is not part of the graph."""
    if release is None:
        return
    relaxed = bindings().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
    mode = call("cuThreadExchangeStreamCaptureMode", relaxed)
    try:
        context.call(release, handle)
    finally:
        call("cuThreadExchangeStreamCaptureMode", mode)


def _release_quietly(context: Context, release: str | None, handle: Any) -> None:
    with suppress(BackendRunError):  # the failed call was reported already; each remaining object would repeat it
        _release(context, release, handle)


class DeviceMemory(Resource):
    """Uninitialized GPU memory."""

    def __init__(self, context: Context, nbytes: int) -> None:
        self.nbytes = _positive(nbytes)
        pointer = context.call("cuMemAlloc", nbytes)
        self.address = int(pointer)
        """Device address, a multiple of ALIGNMENT."""
        super().__init__(context, pointer, release="cuMemFree")


class PinnedMemory(Resource):
    """Uninitialized pinned (page-locked) host memory, for asynchronous copies."""

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
        """View of all bytes as uint8 [nbytes]. It keeps a reference to this object; invalid after `close`."""
        return np.asarray(self)


def _positive(nbytes: int) -> int:
    if nbytes <= 0:
        raise BackendRunError(f"{nbytes} bytes of memory were requested, expected at least 1")
    return nbytes

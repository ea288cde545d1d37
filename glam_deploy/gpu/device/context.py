"""The primary context of one GPU, in which every driver call runs and is counted; device and pinned host memory."""

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
"""Bytes that every allocation is aligned to: the alignment of textures, which is 512 on every GPU so far and which
TensorRT demands for scratch. (The CUDA C++ Programming Guide promises 256; drivers give 512 and more.)"""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often this package has done what must not happen between an upload and its result."""

    allocations: int
    """Of device and of pinned memory."""
    synchronisations: int
    """The host waited for the GPU."""


class Context:
    """The primary context of a GPU, shared with every other library in the process. Safe to use from any thread.

    It is retained once and stays until the process ends; no other context is ever created.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.handle = call("cuDevicePrimaryCtxRetain", call("cuDeviceGet", index))
        self._counted: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Current in this thread inside the block; afterwards the thread has the context that it had before."""
        call("cuCtxPushCurrent", self.handle)
        try:
            yield
        finally:
            call("cuCtxPopCurrent")

    def call(self, name: str, *arguments: object, unless: str | None = None) -> Any:
        """`driver.call` inside this context."""
        if name in ALLOCATING or name in SYNCHRONISING:
            with self._lock:
                self._counted[name] += 1
        with self.current():
            return call(name, *arguments, unless=unless)

    @property
    def counts(self) -> Counts:
        """Calls so far of all that was made with this context, from every thread."""
        with self._lock:
            counted = self._counted.copy()
        return Counts(
            allocations=sum(counted[name] for name in ALLOCATING),
            synchronisations=sum(counted[name] for name in SYNCHRONISING),
        )


class Resource:
    """Something that the driver must get back: at `close`, or when the last reference to it goes.

    At the end of the process the driver takes everything itself.
    """

    def __init__(self, context: Context, handle: Any, *, release: str | None) -> None:
        """`release` is the driver's function that takes the handle back; None for what belongs to someone else."""
        self.context = context
        self._handle = handle
        self._finalizer = weakref.finalize(self, _release_quietly, context, release, handle)
        self._finalizer.atexit = False

    def close(self) -> None:
        """Give it back now. A second call does nothing. Raises BackendRunError."""
        if alive := self._finalizer.detach():
            _, _, arguments, _ = alive
            _release(*arguments)

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return not self._finalizer.alive

    @property
    def handle(self) -> Any:
        """As the driver knows it. Raises BackendRunError after `close`: the driver would not notice."""
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
    """Allowed while this thread records a graph: what is given back cannot be part of it."""
    if release is None:
        return
    relaxed = bindings().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
    mode = call("cuThreadExchangeStreamCaptureMode", relaxed)
    try:
        context.call(release, handle)
    finally:
        call("cuThreadExchangeStreamCaptureMode", mode)


def _release_quietly(context: Context, release: str | None, handle: Any) -> None:
    with suppress(BackendRunError):  # the call that broke the GPU has been told; each object left would tell it again
        _release(context, release, handle)


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

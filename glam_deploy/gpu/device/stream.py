"""CUDA streams, events, and graphs captured from a stream."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.context import Context, Resource
from glam_deploy.gpu.device.driver import bindings, call
from glam_deploy.gpu.device.kernel import Argument, Kernel

Extent = tuple[int, int, int]
NOT_READY = "CUDA_ERROR_NOT_READY"


class Event(Resource):
    """A CUDA event, which marks a position in a stream."""

    def __init__(self, context: Context, *, timing: bool) -> None:
        flags = bindings().CUevent_flags
        flag = flags.CU_EVENT_DEFAULT if timing else flags.CU_EVENT_DISABLE_TIMING
        super().__init__(context, context.call("cuEventCreate", flag.value), release="cuEventDestroy")

    @property
    def is_done(self) -> bool:
        """Whether all work before the event is done; True if it was never recorded. Does not wait."""
        return self.context.call("cuEventQuery", self.handle, unless=NOT_READY) is not None

    def synchronize(self) -> None:
        """Block the host until all work before the event is done. Raises BackendRunError if work failed."""
        self.context.call("cuEventSynchronize", self.handle)

    def milliseconds_since(self, earlier: "Event") -> float:
        """GPU time between two events, both created with `timing` and both done. Resolution 0.5 microseconds."""
        milliseconds: float = self.context.call("cuEventElapsedTime", earlier.handle, self.handle)
        return milliseconds


class Graph:
    """A CUDA graph with the addresses and arguments of its capture. Created by `Stream.capture`.

    The caller of `capture` must keep the memory and kernels allocated as long as the graph is launched.
    """

    def __init__(self) -> None:
        self._executable: Resource | None = None

    def instantiate(self, recorded: Resource) -> None:
        """Create the executable graph from the captured one. Raises BackendRunError."""
        handle = recorded.context.call("cuGraphInstantiate", recorded.handle, 0)
        self._executable = Resource(recorded.context, handle, release="cuGraphExecDestroy")

    def launch(self, stream: "Stream") -> None:
        """Launch the graph in a stream. Raises BackendRunError."""
        if self._executable is None or self._executable.closed:
            raise BackendRunError("graph launched before the end of its recording or after it was closed")
        stream.context.call("cuGraphLaunch", self._executable.handle, stream.handle)

    def close(self) -> None:
        """Release the graph; further calls have no effect."""
        if self._executable is not None:
            self._executable.close()


class Stream(Resource):
    """A CUDA stream. All methods except `synchronize` only enqueue work.

    Addresses are plain ints. Memory must stay allocated until the work is done.
    """

    def __init__(self, context: Context, handle: int, *, owned: bool, keeps: object = None) -> None:
        super().__init__(context, handle, release="cuStreamDestroy" if owned else None)
        self._keeps = keeps

    @property
    def handle(self) -> int:
        """The handle as an int (cudaStream_t, CUstream), for example for TensorRT."""
        return int(super().handle)

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle

    def copy_in(self, address: int, host_address: int, nbytes: int) -> None:
        """Copy from host to device; asynchronous for pinned memory, which must not change until the copy is done.

        During capture the driver accepts pageable memory without an error (580.159); it must then stay allocated as
        long as the graph is used.
        """
        self.context.call("cuMemcpyHtoDAsync", address, host_address, nbytes, self.handle)

    def copy_out(self, host_address: int, address: int, nbytes: int) -> None:
        """Copy from device to host; asynchronous for pinned memory, whose content is valid after `synchronize`."""
        self.context.call("cuMemcpyDtoHAsync", host_address, address, nbytes, self.handle)

    def copy(self, to_address: int, from_address: int, nbytes: int) -> None:
        """Copy from device to device."""
        self.context.call("cuMemcpyDtoDAsync", to_address, from_address, nbytes, self.handle)

    def fill(self, address: int, nbytes: int, byte: int) -> None:
        """Set all bytes to `byte`."""
        self.context.call("cuMemsetD8Async", address, byte, nbytes, self.handle)

    def launch(self, kernel: Kernel, grid: Extent, block: Extent, *arguments: Argument) -> None:
        """Launch a kernel. Raises BackendRunError, also for arguments that do not match the kernel's parameters."""
        values = kernel.packed(arguments)
        addresses = np.array([value.ctypes.data for value in values], np.uintp)
        self.context.call("cuLaunchKernel", kernel.handle, *grid, *block, 0, self.handle, addresses.ctypes.data, 0)

    def record(self, event: Event) -> None:
        """Record an event after the work enqueued so far."""
        self.context.call("cuEventRecord", event.handle, self.handle)

    def wait(self, event: Event) -> None:
        """Later work of this stream waits for an event, which may be recorded in another stream."""
        self.context.call("cuStreamWaitEvent", self.handle, event.handle, 0)

    def follow(self, other: "Stream") -> None:
        """Later work of this stream waits for all work that is now enqueued in `other`."""
        if other.handle != self.handle:
            with Event(self.context, timing=False) as event:  # the driver frees it after both streams have passed it
                other.record(event)
                self.wait(event)

    def synchronize(self) -> None:
        """Block the host until all work is done. Raises BackendRunError if work failed."""
        self.context.call("cuStreamSynchronize", self.handle)

    @property
    def is_idle(self) -> bool:
        """Whether all work is done. Does not wait."""
        return self.context.call("cuStreamQuery", self.handle, unless=NOT_READY) is not None

    @property
    def is_capturing(self) -> bool:
        """Whether the stream is capturing, which it does inside `capture`."""
        status = self.context.call("cuStreamIsCapturing", self.handle)
        return bool(status != bindings().CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE)

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        """Capture the work enqueued in this stream inside the block, by any library, as a CUDA graph; nothing runs.

        The graph can be launched after the block. During the capture this thread may not allocate memory or wait for
        the GPU; other threads are not restricted. Raises BackendRunError.
        """
        graph = Graph()
        mode = bindings().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        with self.context.current():
            call("cuStreamBeginCapture", self.handle, mode)
            try:
                yield graph
            except BaseException:
                self._abandon_capture()
                raise
            with self._end_capture() as recorded:
                graph.instantiate(recorded)

    def _end_capture(self) -> Resource:
        return Resource(self.context, call("cuStreamEndCapture", self.handle), release="cuGraphDestroy")

    def _abandon_capture(self) -> None:
        with suppress(BackendRunError):  # the capture may be invalid already; the stream must leave capture mode anyway
            self._end_capture().close()

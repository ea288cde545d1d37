"""Work in order on the GPU: streams, events, and graphs recorded from a stream."""

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
    """A mark in a stream."""

    def __init__(self, context: Context, *, timing: bool) -> None:
        flags = bindings().CUevent_flags
        flag = flags.CU_EVENT_DEFAULT if timing else flags.CU_EVENT_DISABLE_TIMING
        super().__init__(context, context.call("cuEventCreate", flag.value), release="cuEventDestroy")

    @property
    def is_done(self) -> bool:
        """True when all work before the mark is done, or it was never recorded. Does not wait."""
        return self.context.call("cuEventQuery", self.handle, unless=NOT_READY) is not None

    def synchronize(self) -> None:
        """Wait on the host until all work before the mark is done. Raises BackendRunError for work that failed."""
        self.context.call("cuEventSynchronize", self.handle)

    def milliseconds_since(self, earlier: "Event") -> float:
        """Time on the GPU between two marks, both made with `timing` and both done. Resolution 0.5 microseconds."""
        milliseconds: float = self.context.call("cuEventElapsedTime", earlier.handle, self.handle)
        return milliseconds


class Graph:
    """Recorded work: its addresses and arguments are those of the recording. Made by `Stream.capture`.

    Whoever records keeps the memory and the kernels alive for as long as the graph is launched.
    """

    def __init__(self) -> None:
        self._executable: Resource | None = None

    def instantiate(self, recorded: Resource) -> None:
        """Make the recorded work ready to launch. Raises BackendRunError."""
        handle = recorded.context.call("cuGraphInstantiate", recorded.handle, 0)
        self._executable = Resource(recorded.context, handle, release="cuGraphExecDestroy")

    def launch(self, stream: "Stream") -> None:
        """All of the recorded work, in a stream. Raises BackendRunError."""
        if self._executable is None or self._executable.closed:
            raise BackendRunError("graph launched that is not recorded to its end, or is closed")
        stream.context.call("cuGraphLaunch", self._executable.handle, stream.handle)

    def close(self) -> None:
        """Give it back now. A second call does nothing."""
        if self._executable is not None:
            self._executable.close()


class Stream(Resource):
    """A queue of work on the GPU, done in order. Every method but `synchronize` only puts work into it.

    Addresses are plain ints. Memory must stay where it is until the work is done.
    """

    def __init__(self, context: Context, handle: int, *, owned: bool, keeps: object = None) -> None:
        super().__init__(context, handle, release="cuStreamDestroy" if owned else None)
        self._keeps = keeps

    @property
    def handle(self) -> int:
        """As C has it (cudaStream_t, CUstream); TensorRT's enqueue takes it."""
        return int(super().handle)

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle

    def copy_in(self, address: int, host_address: int, nbytes: int) -> None:
        """Host to device. From pinned memory this is asynchronous, and the host must leave the bytes alone.

        A recording takes other memory too, without a word (driver 580.159): whoever records keeps it where it is.
        """
        self.context.call("cuMemcpyHtoDAsync", address, host_address, nbytes, self.handle)

    def copy_out(self, host_address: int, address: int, nbytes: int) -> None:
        """Device to host. To pinned memory this is asynchronous: the bytes are there after `synchronize`."""
        self.context.call("cuMemcpyDtoHAsync", host_address, address, nbytes, self.handle)

    def copy(self, to_address: int, from_address: int, nbytes: int) -> None:
        """Device to device."""
        self.context.call("cuMemcpyDtoDAsync", to_address, from_address, nbytes, self.handle)

    def fill(self, address: int, nbytes: int, byte: int) -> None:
        """Set every byte."""
        self.context.call("cuMemsetD8Async", address, byte, nbytes, self.handle)

    def launch(self, kernel: Kernel, grid: Extent, block: Extent, *arguments: Argument) -> None:
        """Run a kernel. Raises BackendRunError, also where the arguments do not fit the kernel's parameters."""
        values = kernel.packed(arguments)
        addresses = np.array([value.ctypes.data for value in values], np.uintp)
        self.context.call("cuLaunchKernel", kernel.handle, *grid, *block, 0, self.handle, addresses.ctypes.data, 0)

    def record(self, event: Event) -> None:
        """Mark this place."""
        self.context.call("cuEventRecord", event.handle, self.handle)

    def wait(self, event: Event) -> None:
        """Work put in from now on begins when the mark, in whatever stream it is, has been reached."""
        self.context.call("cuStreamWaitEvent", self.handle, event.handle, 0)

    def follow(self, other: "Stream") -> None:
        """Work put in from now on begins when all that `other` holds now is done."""
        if other.handle != self.handle:
            with Event(self.context, timing=False) as event:  # the driver keeps it until both have passed it
                other.record(event)
                self.wait(event)

    def synchronize(self) -> None:
        """Wait on the host until all is done. Raises BackendRunError for work that failed."""
        self.context.call("cuStreamSynchronize", self.handle)

    @property
    def is_idle(self) -> bool:
        """True when all work is done. Does not wait."""
        return self.context.call("cuStreamQuery", self.handle, unless=NOT_READY) is not None

    @property
    def is_capturing(self) -> bool:
        """True inside `capture`."""
        status = self.context.call("cuStreamIsCapturing", self.handle)
        return bool(status != bindings().CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE)

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        """Work put into this stream inside the block, by whomever, is recorded and not done.

        The graph can be launched after the block. Only calls of this thread that could disturb the recording are
        forbidden meanwhile (allocating, waiting); other threads go on as they like. Raises BackendRunError.
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
        with suppress(BackendRunError):  # it may be broken already; the stream must leave it in any case
            self._end_capture().close()

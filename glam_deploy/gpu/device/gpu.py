"""One GPU: its properties, and creation of memory, streams, events and kernels."""

from contextlib import AbstractContextManager
from typing import Any

from glam_deploy.errors import BackendRunError, BackendUnavailable
from glam_deploy.gpu.device import driver
from glam_deploy.gpu.device.context import Context, Counts, DeviceMemory, PinnedMemory
from glam_deploy.gpu.device.driver import bindings, call
from glam_deploy.gpu.device.kernel import Module
from glam_deploy.gpu.device.stream import Event, Stream


class Gpu:
    """A GPU, used through its primary context. Thread-safe, with any current context of the thread.

    The constructor raises BackendUnavailable if the package, the driver or a GPU with this index is missing. The
    methods raise BackendRunError.
    """

    def __init__(self, index: int = 0) -> None:
        self._context = _context(index)
        self.index = index
        device = call("cuDeviceGet", index)
        major, minor = (_attribute(device, f"COMPUTE_CAPABILITY_{part}") for part in ("MAJOR", "MINOR"))
        cuda = call("cuDriverGetVersion")
        self.name: str = call("cuDeviceGetName", 256, device).partition(b"\0")[0].decode()
        """Name from the driver, such as "NVIDIA H200"."""
        self.compute_capability = f"{major}.{minor}"
        """Such as "9.0"."""
        self.architecture = f"sm_{major}{minor}"
        """Architecture for `compile_cubin`, such as "sm_90"."""
        self.driver = driver.version()
        """Version of the driver, such as "580.95.05", or "unknown"."""
        self.cuda = f"{cuda // 1000}.{cuda % 1000 // 10}"
        """Highest CUDA version that the driver supports, such as "13.0"."""
        self.memory_bytes = int(call("cuDeviceTotalMem", device))
        self.multiprocessors = _attribute(device, "MULTIPROCESSOR_COUNT")
        self.clock_khz = _attribute(device, "CLOCK_RATE")
        """Maximum clock of the multiprocessors; this and the two below are 0 if the driver does not report them."""
        self.memory_clock_khz = _attribute(device, "MEMORY_CLOCK_RATE")
        self.memory_bus_bits = _attribute(device, "GLOBAL_MEMORY_BUS_WIDTH")

    def current(self) -> AbstractContextManager[None]:
        """Make this GPU's primary context current in this thread inside the block, for libraries such as TensorRT.

        The methods of this package do it themselves.
        """
        return self._context.current()

    @property
    def counts(self) -> Counts:
        """Numbers of allocations and synchronizations so far."""
        return self._context.counts

    @property
    def uuid(self) -> str:
        """UUID of the GPU as `nvidia-smi -L` prints it: it names one piece of hardware, whatever its index."""
        from uuid import UUID  # only for several GPUs: a run on one does not wait for this import

        return f"GPU-{UUID(bytes=call('cuDeviceGetUuid', call('cuDeviceGet', self.index)).bytes)}"

    @property
    def free_bytes(self) -> int:
        """Free GPU memory in bytes."""
        return int(self._context.call("cuMemGetInfo")[0])

    @property
    def used_bytes(self) -> int:
        """GPU memory in use by all processes, in bytes."""
        free, total = self._context.call("cuMemGetInfo")
        return int(total - free)

    def allocate(self, nbytes: int) -> DeviceMemory:
        """Allocate device memory. Raises BackendRunError if there is not enough."""
        return DeviceMemory(self._context, nbytes)

    def pinned(self, nbytes: int) -> PinnedMemory:
        """Allocate pinned host memory."""
        return PinnedMemory(self._context, nbytes)

    def stream(self) -> Stream:
        """Create a non-blocking stream: it does not synchronize with other streams, including the default stream."""
        flag = bindings().CUstream_flags.CU_STREAM_NON_BLOCKING
        return Stream(self._context, int(self._context.call("cuStreamCreate", flag.value)), owned=True)

    def adopt(self, stream: object) -> Stream:
        """Wrap a caller's stream, given as handle (int) or as object with `__cuda_stream__`; the caller still owns it.

        Raises BackendRunError for other objects and for a stream of another context.
        """
        adopted = Stream(self._context, _handle_of(stream), owned=False, keeps=stream)
        owner = self._context.call("cuStreamGetCtx", adopted.handle)
        if int(owner) != int(self._context.handle):
            raise BackendRunError(
                f"stream {adopted.handle:#x} belongs to another CUDA context, expected GPU {self.index}'s primary "
                f"context. Create it on that GPU; with PyCUDA, after `import pycuda.autoprimaryctx`."
            )
        return adopted

    def reaches(self, address: int) -> bool:
        """Whether `address` is device memory of this GPU that its primary context can access, as kernels require."""
        kind = self._pointer_attribute("MEMORY_TYPE", address)
        # memory from a pool belongs to no context, and all contexts can access it
        owners = (0, int(self._context.handle))
        return (
            kind == bindings().CUmemorytype.CU_MEMORYTYPE_DEVICE
            and self._pointer_attribute("DEVICE_ORDINAL", address) == self.index
            and self._pointer_attribute("CONTEXT", address) in owners
        )

    def _pointer_attribute(self, name: str, address: int) -> int:
        """Value of a pointer attribute; 0 for an address that CUDA does not know."""
        attribute = getattr(bindings().CUpointer_attribute, f"CU_POINTER_ATTRIBUTE_{name}")
        value = self._context.call("cuPointerGetAttribute", attribute, address, unless="CUDA_ERROR_INVALID_VALUE")
        return int(value or 0)

    def event(self, *, timing: bool = False) -> Event:
        """Create an event; `timing` enables `milliseconds_since`."""
        return Event(self._context, timing=timing)

    def load(self, cubin: bytes) -> Module:
        """Load kernels from `compile_cubin`. Raises BackendRunError if they are for another architecture."""
        return Module(self._context, cubin)


def gpu_count() -> int:
    """Number of GPUs of this machine. Raises BackendUnavailable if the package, the driver or every GPU is missing."""
    try:
        return _start_driver()
    except BackendRunError as error:
        raise BackendUnavailable(f"no GPU can be used: {error}") from error


def _start_driver() -> int:
    """Initialize the driver; returns the number of GPUs."""
    call("cuInit", 0)
    driver.require_version()
    return int(call("cuDeviceGetCount"))


def _context(index: int) -> Context:
    try:
        found = _start_driver()
        if not 0 <= index < found:
            raise BackendUnavailable(f"there is no GPU {index}: this machine has {found} GPUs, counted from 0")
        return Context(index)
    except BackendRunError as error:
        raise BackendUnavailable(f"GPU {index} cannot be used: {error}") from error


def _attribute(device: Any, name: str) -> int:
    """Value of a device attribute; 0 if this driver does not support the attribute."""
    attribute = getattr(bindings().CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
    return call("cuDeviceGetAttribute", attribute, device, unless="CUDA_ERROR_INVALID_VALUE") or 0


def _handle_of(stream: object) -> int:
    if isinstance(stream, int) and not isinstance(stream, bool) and stream >= 0:
        return stream
    if (protocol := getattr(stream, "__cuda_stream__", None)) is not None:
        return int(protocol()[1])
    raise BackendRunError(f"{stream!r} is not a CUDA stream: expected a handle (int) or an object with __cuda_stream__")

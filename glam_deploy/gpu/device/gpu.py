"""One GPU: what it is, and everything that is made on it."""

from contextlib import AbstractContextManager
from typing import Any

from glam_deploy.errors import BackendRunError, BackendUnavailable
from glam_deploy.gpu.device import driver
from glam_deploy.gpu.device.context import Context, Counts, DeviceMemory, PinnedMemory
from glam_deploy.gpu.device.driver import bindings, call
from glam_deploy.gpu.device.kernel import Module
from glam_deploy.gpu.device.stream import Event, Stream


class Gpu:
    """A GPU through its primary context. Any thread may use it, whatever context that thread has current.

    Raises BackendUnavailable, naming what is missing: the package, the driver, a GPU at all, or one of this index.
    What fails later raises BackendRunError.
    """

    def __init__(self, index: int = 0) -> None:
        self._context = _context(index)
        self.index = index
        device = call("cuDeviceGet", index)
        major, minor = (_attribute(device, f"COMPUTE_CAPABILITY_{part}") for part in ("MAJOR", "MINOR"))
        cuda = call("cuDriverGetVersion")
        self.name: str = call("cuDeviceGetName", 256, device).partition(b"\0")[0].decode()
        """As the driver calls it: "NVIDIA H200"."""
        self.compute_capability = f"{major}.{minor}"
        """As NVIDIA's tables have it: "9.0"."""
        self.architecture = f"sm_{major}{minor}"
        """What `compile_cubin` takes: "sm_90"."""
        self.driver = driver.version()
        """Version of the driver, "580.95.05"; "unknown" where nothing tells it."""
        self.cuda = f"{cuda // 1000}.{cuda % 1000 // 10}"
        """The highest CUDA version that the driver serves, "13.0"."""
        self.memory_bytes = int(call("cuDeviceTotalMem", device))
        self.multiprocessors = _attribute(device, "MULTIPROCESSOR_COUNT")
        self.clock_khz = _attribute(device, "CLOCK_RATE")
        """Highest clock of the multiprocessors; 0 where the driver does not tell, as the two below."""
        self.memory_clock_khz = _attribute(device, "MEMORY_CLOCK_RATE")
        self.memory_bus_bits = _attribute(device, "GLOBAL_MEMORY_BUS_WIDTH")

    def current(self) -> AbstractContextManager[None]:
        """This GPU's primary context is current in this thread inside the block.

        Nothing of this package needs it; other libraries do (TensorRT).
        """
        return self._context.current()

    @property
    def counts(self) -> Counts:
        """Allocations and waits so far."""
        return self._context.counts

    @property
    def free_bytes(self) -> int:
        """Memory that nobody holds, in any process."""
        return int(self._context.call("cuMemGetInfo")[0])

    @property
    def used_bytes(self) -> int:
        """Memory that all processes hold together."""
        free, total = self._context.call("cuMemGetInfo")
        return int(total - free)

    def allocate(self, nbytes: int) -> DeviceMemory:
        """Device memory. Raises BackendRunError where there is not enough."""
        return DeviceMemory(self._context, nbytes)

    def pinned(self, nbytes: int) -> PinnedMemory:
        """Pinned host memory."""
        return PinnedMemory(self._context, nbytes)

    def stream(self) -> Stream:
        """A stream that waits for no other, the default stream included."""
        flag = bindings().CUstream_flags.CU_STREAM_NON_BLOCKING
        return Stream(self._context, int(self._context.call("cuStreamCreate", flag.value)), owned=True)

    def adopt(self, stream: object) -> Stream:
        """A caller's stream: its handle as an int, or an object with `__cuda_stream__`. It remains the caller's.

        Raises BackendRunError for anything else and for a stream of another context.
        """
        adopted = Stream(self._context, _handle_of(stream), owned=False, keeps=stream)
        owner = self._context.call("cuStreamGetCtx", adopted.handle)
        if int(owner) != int(self._context.handle):
            raise BackendRunError(
                f"stream {adopted.handle:#x} belongs to another CUDA context than GPU {self.index}'s primary one. "
                f"Make it on that GPU, with PyCUDA after `import pycuda.autoprimaryctx`."
            )
        return adopted

    def reaches(self, address: int) -> bool:
        """Whether this is device memory of this GPU and of its primary context, as all here is and kernels need it."""
        kind = self._pointer_fact("MEMORY_TYPE", address)
        # memory from a pool belongs to no context, and every one reaches it
        owners = (0, int(self._context.handle))
        return (
            kind == bindings().CUmemorytype.CU_MEMORYTYPE_DEVICE
            and self._pointer_fact("DEVICE_ORDINAL", address) == self.index
            and self._pointer_fact("CONTEXT", address) in owners
        )

    def _pointer_fact(self, name: str, address: int) -> int:
        """0 for what is no address of CUDA's."""
        attribute = getattr(bindings().CUpointer_attribute, f"CU_POINTER_ATTRIBUTE_{name}")
        fact = self._context.call("cuPointerGetAttribute", attribute, address, unless="CUDA_ERROR_INVALID_VALUE")
        return int(fact or 0)

    def event(self, *, timing: bool = False) -> Event:
        """A mark that can be recorded in streams; `timing` lets it be measured with."""
        return Event(self._context, timing=timing)

    def load(self, cubin: bytes) -> Module:
        """Kernels from `compile_cubin`. Raises BackendRunError where they are for another kind of GPU."""
        return Module(self._context, cubin)


def _context(index: int) -> Context:
    try:
        call("cuInit", 0)
        driver.require_version()
        found = call("cuDeviceGetCount")
        if not 0 <= index < found:
            raise BackendUnavailable(f"GPU {index} was asked for; this machine shows {found}, counted from 0")
        return Context(index)
    except BackendRunError as error:
        raise BackendUnavailable(f"GPU {index} cannot be used: {error}") from error


def _attribute(device: Any, name: str) -> int:
    """0 where this driver does not know the attribute any more."""
    attribute = getattr(bindings().CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
    return call("cuDeviceGetAttribute", attribute, device, unless="CUDA_ERROR_INVALID_VALUE") or 0


def _handle_of(stream: object) -> int:
    if isinstance(stream, int) and not isinstance(stream, bool) and stream >= 0:
        return stream
    if (protocol := getattr(stream, "__cuda_stream__", None)) is not None:
        return int(protocol()[1])
    raise BackendRunError(f"{stream!r} is no CUDA stream: expected its handle as an int, or `__cuda_stream__`")

"""Engines on a GPU without one: numpy over raw addresses, behind the contract of device engines.

They run on the real `Gpu` under a driver whose device memory is host memory (tests/fake_cuda), captured graphs
included, and on `StubGpu`, which needs no driver: its streams do nothing until somebody waits for them, so that a
forgotten wait shows in the numbers.
"""

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, cast

import numpy as np

from glam_deploy.device.gpu import Gpu
from glam_deploy.device.stream import Stream
from glam_deploy.engines.base import Engine
from glam_deploy.engines.device_base import Addresses, DeviceEngine
from glam_deploy.spec import STAGES, Stage, Tensor

HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
SCRATCH_BYTES = 64


class HostFunctionEngine(DeviceEngine):
    """Another engine's arithmetic on memory at fixed addresses, done when its stream comes to it.

    Scratch is filled with rubbish, as a true engine would do; a run may be captured once it has been enqueued.
    """

    def __init__(self, inner: Engine, gpu: Gpu) -> None:
        super().__init__(inner.stage, fusion_head="attention" in inner.contract.outputs, gpu=gpu)
        self.inner = inner
        self.binds: list[int] = []
        """Batch of each `bind` so far."""

    def scratch_bytes(self, batch: int) -> int:
        return SCRATCH_BYTES * batch

    def bind(self, tensors: Addresses, *, batch: int, scratch: int, stream: Stream) -> "HostFunctionRun":
        self.binds.append(batch)
        inputs = {name: array_at(tensors[name], t, batch) for name, t in self.contract.inputs.items()}
        outputs = {name: array_at(tensors[name], t, batch) for name, t in self.contract.outputs.items()}
        rubbish = array_at(scratch, Tensor(dtype="uint8", shape=(SCRATCH_BYTES,)), batch)
        return HostFunctionRun(self.inner, inputs, outputs, rubbish)


class HostFunctionRun:
    """Bound addresses, as arrays over them."""

    def __init__(self, inner: Engine, inputs: Mapping[str, Any], outputs: Mapping[str, Any], rubbish: Any) -> None:
        self._inner, self._inputs, self._outputs, self._rubbish = inner, inputs, outputs, rubbish
        self._callback = HOST_FUNCTION(lambda _: self._compute())  # as long as a graph that holds it
        self.capturable = False

    def enqueue(self, stream: Stream) -> None:
        if isinstance(stream, StubStream):
            stream.put(self._compute)
        else:
            address = ctypes.cast(self._callback, ctypes.c_void_p).value
            stream.context.call("cuLaunchHostFunc", stream.handle, address, 0)
        self.capturable = True

    def _compute(self) -> None:
        self._rubbish[:] = 0xA5
        results = self._inner._run(self._inputs)
        for name, into in self._outputs.items():
            into[:] = results[name]


def array_at(address: int, tensor: Tensor, batch: int) -> np.ndarray:
    """The `batch` rows of a tensor that lie at an address of this process, as an array over them."""
    shape, dtype = (batch, *tensor.shape), np.dtype(tensor.dtype)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), dtype).reshape(shape)


def host_function_engines(engines: Mapping[Stage, Engine], gpu: Gpu) -> dict[Stage, Engine]:
    """The three stages on a GPU."""
    return {stage: HostFunctionEngine(engines[stage], gpu) for stage in STAGES}


# without a driver


class StubMemory:
    """Host memory that counts itself among its GPU's for as long as it lives."""

    def __init__(self, gpu: "StubGpu", nbytes: int) -> None:
        assert nbytes > 0
        self.nbytes = nbytes
        self._gpu = gpu
        self._bytes = np.full(nbytes + 256, 0xCD, np.uint8)
        self.address = -(-self._bytes.ctypes.data // 256) * 256
        gpu.held += nbytes
        gpu.most_held = max(gpu.most_held, gpu.held)

    def __del__(self) -> None:
        self._gpu.held -= self.nbytes


class StubEvent:
    """Where a stream was when it was recorded."""

    stream: "StubStream | None" = None
    place = 0


class StubStream:
    """Work in order, done when it is waited for and not before."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._work: list[Callable[[], object]] = []
        self._done = 0

    def put(self, function: Callable[[], object]) -> None:
        self._work.append(function)

    def copy_in(self, address: int, host_address: int, nbytes: int) -> None:
        self.put(lambda: ctypes.memmove(address, host_address, nbytes))

    def copy_out(self, host_address: int, address: int, nbytes: int) -> None:
        self.put(lambda: ctypes.memmove(host_address, address, nbytes))

    def record(self, event: StubEvent) -> None:
        event.stream, event.place = self, len(self._work)

    def wait(self, event: StubEvent) -> None:
        stream, place = event.stream, event.place
        if stream is not None:
            self.put(lambda: stream.do(place))

    def do(self, place: int) -> None:
        """All work up to a place."""
        while self._done < place:
            self._done += 1
            self._work[self._done - 1]()

    def synchronize(self) -> None:
        self.do(len(self._work))


class StubGpu:
    """As much of `Gpu` as engines use."""

    index = 0
    name = "Stub GPU"
    compute_capability = "8.9"
    architecture = "sm_89"
    driver = "580.00"

    def __init__(self) -> None:
        self.held = 0
        """Bytes allocated now."""
        self.most_held = 0
        self.inside = 0
        """How often it is current now."""
        self._handles = count(0x1000)

    @contextmanager
    def current(self) -> Iterator[None]:
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def allocate(self, nbytes: int) -> StubMemory:
        return StubMemory(self, nbytes)

    def stream(self) -> StubStream:
        return StubStream(next(self._handles))

    def event(self) -> StubEvent:
        return StubEvent()


def stub_gpu() -> Gpu:
    """For what asks for a Gpu; look at it as a StubGpu."""
    return cast(Gpu, StubGpu())

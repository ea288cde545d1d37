"""Engines on a GPU without one: another engine's arithmetic over raw addresses, in its place in a stream.

For processes with the fake driver (tests/fake_cuda), whose device memory is host memory; graphs record it too.
"""

from collections.abc import Mapping

import numpy as np
from fake_cuda.control import FakeDriver

from glam_deploy.engines.base import Arrays, Engine
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.engines.base import Addresses, DeviceEngine
from glam_deploy.networks import STAGES, Stage, Tensor

SCRATCH_BYTES = 64
"""For each row."""
RUBBISH = 0xA5


class HostFunctionEngine(DeviceEngine):
    """`inner` on memory at fixed addresses, done when its stream comes to it. Leaves rubbish in its scratch."""

    def __init__(self, inner: Engine, gpu: Gpu, driver: FakeDriver) -> None:
        super().__init__(inner.stage, network=inner.network, gpu=gpu)
        self.inner, self.driver = inner, driver
        self.binds: list[int] = []
        """The batch of each binding so far."""

    def scratch_bytes(self, batch: int) -> int:
        return batch * SCRATCH_BYTES

    def bind(self, tensors: Addresses, *, batch: int, scratch: int, stream: Stream) -> "HostFunctionRun":
        assert all(self.gpu.reaches(address) for address in (*tensors.values(), scratch))
        assert stream.context is self.gpu.stream().context
        self.binds.append(batch)
        inputs = {name: _array(tensors[name], t, batch) for name, t in self.contract.inputs.items()}
        outputs = {name: _array(tensors[name], t, batch) for name, t in self.contract.outputs.items()}
        return HostFunctionRun(self, inputs, outputs, FakeDriver.peek(scratch, (batch * SCRATCH_BYTES,), np.uint8))


class HostFunctionRun:
    """A binding; it may be captured once it has run, as with true engines."""

    def __init__(self, engine: HostFunctionEngine, inputs: Arrays, outputs: Arrays, scratch: np.ndarray) -> None:
        self._engine, self._inputs, self._outputs, self._scratch = engine, inputs, outputs, scratch
        self.capturable = False

    def enqueue(self, stream: Stream) -> None:
        self._engine.driver.put(stream, self._compute)
        self.capturable = True

    def _compute(self) -> None:
        results = self._engine.inner._run(self._inputs)
        self._scratch[:] = RUBBISH
        for name, into in self._outputs.items():
            into[:] = results[name]


def host_function_engines(engines: Mapping[Stage, Engine], gpu: Gpu, driver: FakeDriver) -> dict[Stage, Engine]:
    """The three stages, each as above."""
    return {stage: HostFunctionEngine(engines[stage], gpu, driver) for stage in STAGES}


def _array(address: int, tensor: Tensor, batch: int) -> np.ndarray:
    return FakeDriver.peek(address, (batch, *tensor.shape), tensor.dtype)

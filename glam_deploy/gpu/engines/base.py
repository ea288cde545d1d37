"""What an engine on a GPU is: bound once to addresses, then enqueued again and again without waiting for the GPU."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from threading import Lock
from typing import Protocol

import numpy as np

from glam_deploy.engines.base import Arrays, Engine, EngineIdentity, OpenedEngines
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.networks import NetworkSpec, Stage, Tensor

Addresses = Mapping[str, int]
"""Name of an input or output -> where it begins in GPU memory: C order, dtype and shape as the contract says."""


class DeviceRun(Protocol):
    """One stage bound to addresses and to a batch. It has one owner at a time."""

    @property
    def capturable(self) -> bool:
        """Whether `enqueue` may be recorded into a CUDA graph; never before it has run once outside of one.

        A recording may fail all the same: the library allocates or waits in it. Then the run works as before.
        """

    def enqueue(self, stream: Stream) -> None:
        """Put the stage's work into a stream, behind what it holds already, and return without waiting for it.

        Raises BackendRunError in the library's words.
        """


class DeviceEngine(Engine, ABC):
    """One stage's graph on a GPU. Its fusion stage gives no `saliency`: a kernel composes the map.

    `bind` is for a pipeline, whose arrays stay on the GPU. `run`, which every engine has, is for checks: it copies
    each array in and out, and its calls wait for each other.
    """

    def __init__(self, stage: Stage, *, network: NetworkSpec, gpu: Gpu) -> None:
        super().__init__(stage, network=network, composed=False)
        self.gpu = gpu
        self._turn = Lock()
        self._bound: _HostRun | None = None

    @abstractmethod
    def scratch_bytes(self, batch: int) -> int:
        """GPU memory that a run of `batch` rows needs beside its inputs and outputs; may be 0.

        Its content means nothing before and after a run, so stages that never run at once may share it. May take as
        long as `bind`. Raises BackendRunError for a batch that the engine was not built for.
        """

    @abstractmethod
    def bind(self, tensors: Addresses, *, batch: int, scratch: int, stream: Stream) -> DeviceRun:
        """Prepare runs of `batch` rows, for `stream`, over memory that stays where it is.

        `tensors` has every input and output of the contract, `scratch` is the address of `scratch_bytes(batch)` bytes,
        never 0, which TensorRT refuses even for no bytes; each address is a multiple of `memory.ALIGNMENT`. The memory
        is the caller's and must outlive the run. May take seconds and may wait for the GPU. Raises BackendRunError for
        a batch that the engine was not built for.
        """

    def _run(self, inputs: Arrays) -> Arrays:
        batch = len(next(iter(inputs.values())))
        with self._turn:
            if self._bound is None or self._bound.batch != batch:
                self._bound = None  # its memory is free before more is asked for
                self._bound = _HostRun(self, batch)
            return self._bound(inputs)


class _HostRun:
    """A run with memory and a stream of its own, from numpy to numpy."""

    def __init__(self, engine: DeviceEngine, batch: int) -> None:
        self.batch = batch
        self._outputs = engine.contract.outputs
        self._stream = engine.gpu.stream()
        tensors = {**engine.contract.inputs, **engine.contract.outputs}
        self._memory = {name: engine.gpu.allocate(batch * _row_bytes(t)) for name, t in tensors.items()}
        self._scratch = engine.gpu.allocate(max(engine.scratch_bytes(batch), 1))
        self._run = engine.bind(
            {name: memory.address for name, memory in self._memory.items()},
            batch=batch,
            scratch=self._scratch.address,
            stream=self._stream,
        )

    def __call__(self, inputs: Arrays) -> Arrays:
        outputs = {name: np.empty((self.batch, *t.shape), t.dtype) for name, t in self._outputs.items()}
        for name, values in inputs.items():
            self._stream.copy_in(self._memory[name].address, values.ctypes.data, values.nbytes)
        self._run.enqueue(self._stream)
        for name, values in outputs.items():
            self._stream.copy_out(values.ctypes.data, self._memory[name].address, values.nbytes)
        self._stream.synchronize()
        return outputs


def _row_bytes(tensor: Tensor) -> int:
    return prod(tensor.shape) * np.dtype(tensor.dtype).itemsize


def on_gpu(identity: EngineIdentity, gpu: Gpu) -> EngineIdentity:
    """The identity of the same engine on a GPU."""
    return replace(identity, device=gpu.name, compute_capability=gpu.compute_capability, driver=gpu.driver)


@dataclass(frozen=True, kw_only=True)
class GpuEngines(OpenedEngines):
    """The engines of a bundle on a GPU, and the kernels for the steps between them."""

    engines: Mapping[Stage, DeviceEngine]
    gpu: Gpu
    """The GPU that all engines run on."""
    kernels: Kernels
    """Loaded on that GPU, compiled for the engines' network."""

"""Interface of GPU engines: bound to addresses once, then enqueued any number of times without waiting for the GPU."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from threading import Lock
from typing import Protocol

import numpy as np

from glam_deploy.bundle import FUSION_WEIGHTS_FILE, Bundle
from glam_deploy.engines.base import Arrays, Engine, EngineIdentity, OpenedEngines
from glam_deploy.engines.fusion_head import Weights, read_fusion_weights
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.kernel import Module
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.kernels.head import HeadKernels, pack_weights
from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.networks import NetworkSpec, Stage, Tensor

Addresses = Mapping[str, int]
"""Name of an input or output -> its address in GPU memory: C order, with dtype and shape of the contract."""


class DeviceRun(Protocol):
    """One stage bound to addresses and to a batch size. Not thread-safe."""

    @property
    def capturable(self) -> bool:
        """Whether `enqueue` may be captured in a CUDA graph; False before the first run outside of a capture.

        A capture may still fail if the library allocates memory or synchronizes; runs without capture still work then.
        """

    def enqueue(self, stream: Stream) -> None:
        """Enqueue the stage in a stream; returns without waiting for it.

        Raises BackendRunError with the library's message.
        """


class DeviceEngine(Engine, ABC):
    """Runs the graph of one stage on a GPU. The fusion stage has no output `saliency`: a kernel computes the map.

    The pipeline uses `bind`; its arrays stay on the GPU. `run` is for checks: it copies all arrays from and to the
    host, and concurrent calls run one after the other.
    """

    def __init__(self, stage: Stage, *, network: NetworkSpec, gpu: Gpu) -> None:
        super().__init__(stage, network=network, composed=False)
        self.gpu = gpu
        self._run_lock = Lock()
        self._bound: _HostRun | None = None

    @abstractmethod
    def scratch_bytes(self, batch: int) -> int:
        """Bytes of GPU memory that a run of `batch` rows needs in addition to its inputs and outputs; may be 0.

        Its content is undefined before and after a run, so stages that never run concurrently may share it. May take
        as long as `bind`. Raises BackendRunError for a batch size for which the engine was not built.
        """

    @abstractmethod
    def bind(self, tensors: Addresses, *, batch: int, scratch: int, stream: Stream) -> DeviceRun:
        """Prepare runs of `batch` rows on `stream` with fixed addresses.

        `tensors`: address of every input and output of the contract. `scratch`: address of `scratch_bytes(batch)`
        bytes, never 0, because TensorRT rejects 0 even for no bytes. Addresses are multiples of `context.ALIGNMENT`.
        The caller owns the memory and keeps it allocated as long as the run is used. May take seconds and may wait for
        the GPU. Raises BackendRunError for a batch size for which the engine was not built.
        """

    def _run(self, inputs: Arrays) -> Arrays:
        batch = len(next(iter(inputs.values())))
        with self._run_lock:
            if self._bound is None or self._bound.batch != batch:
                self._bound = None  # frees its memory before the next allocation
                self._bound = _HostRun(self, batch)
            return self._bound(inputs)


class _HostRun:
    """A bound run with its own memory and stream, for numpy inputs and outputs."""

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
    """The identity with the device, compute capability and driver of a GPU."""
    return replace(identity, device=gpu.name, compute_capability=gpu.compute_capability, driver=gpu.driver)


@dataclass(frozen=True, kw_only=True)
class GpuEngines(OpenedEngines):
    """The engines of a bundle on a GPU, and the kernels for the steps between them."""

    engines: Mapping[Stage, DeviceEngine]
    gpu: Gpu
    """The GPU of all engines."""
    kernels: Kernels
    """Kernels loaded on this GPU, compiled for the network of the engines."""
    head: HeadKernels | None = None
    """The fusion head; None if the engine of the fusion stage computes the scores."""


def gpu_engines(
    bundle: Bundle, engines: Mapping[Stage, DeviceEngine], identity: EngineIdentity, *, gpu: Gpu, cubin: bytes
) -> GpuEngines:
    """The engines of a bundle with the kernels of `cubin`, which is compiled for the bundle's network and this GPU.

    The scores of the fusion stage are computed by kernels if the bundle has their weights; bundles of earlier releases
    do not, and their fusion engine computes the scores as before. Raises BundleError if the weights were changed.
    """
    module, weights = gpu.load(cubin), read_fusion_weights(bundle)
    identity = on_gpu(identity, gpu)
    head = None
    if weights is not None:
        head = head_kernels(module, bundle.network, weights, gpu)
        sha256 = {**identity.sha256, "fusion": bundle.files[FUSION_WEIGHTS_FILE].sha256}
        identity = replace(identity, sha256=sha256, fusion_kernels=True)
    kernels = Kernels(module, bundle.network)
    return GpuEngines(engines=engines, identity=identity, gpu=gpu, kernels=kernels, head=head)


def head_kernels(module: Module, network: NetworkSpec, weights: Weights, gpu: Gpu) -> HeadKernels:
    """The fusion head with its weights in GPU memory; waits for their upload."""
    if not weights:
        return HeadKernels(module, network, None)
    packed = pack_weights(weights)
    memory = gpu.allocate(packed.nbytes)
    with gpu.stream() as stream:
        stream.copy_in(memory.address, packed.ctypes.data, packed.nbytes)
        stream.synchronize()
    return HeadKernels(module, network, memory)

"""PyTorch on a GPU: the network, its clock, and an engine for cards on which no other engine runs.

The engine has the contract of `DeviceEngine`, so that the pipeline can be checked with it. Its modules, and so its half
precisions, are those that the export writes into graphs. Each binding is a CUDA graph of PyTorch's own. For a bundle
without the fusion head's weights the fusion module also composes the fused map, which is not read; its time counts as
glue.
"""

from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from glam_bench.clock import Runs, warm_up
from glam_bench.gpu.workbench import compiled
from glam_deploy.bundle import CHECKPOINT_FILE, Bundle
from glam_deploy.engines.base import OpenedEngines
from glam_deploy.gpu.device.arrays import DeviceArray
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.engines.base import Addresses, DeviceEngine, gpu_engines
from glam_deploy.networks import STAGES, NetworkSpec, Stage
from glam_deploy.precision import Precision, Recipe, StageRecipes
from glam_export.checkpoint import load_weights
from glam_export.graphs.layers import in_precision
from glam_export.networks import graph_modules
from glam_export.reference.glam import GlamNetwork
from glam_export.torch_engine import torch_identity

WARM_UP = 3
"""Runs before one is recorded: cuDNN chooses its convolutions in the first."""
TOGETHER = 5
"""Runs in flight at once."""
RUNS = Runs(warm_up=WARM_UP, warm_up_s=0, at_least=10, at_most=100, seconds=1.0)


def open_torch(bundle: Bundle, precision: Precision, device: int) -> OpenedEngines:
    """The network of a bundle on a GPU. Raises BundleError where the bundle has no checkpoint.

    `device`: index of the GPU.
    """
    gpu = Gpu(device)
    tf32(allowed=False)
    torch.backends.cudnn.benchmark = True
    network = load_network(bundle)
    modules = graph_modules(network)
    engines = {
        stage: TorchGpuEngine(in_precision(modules[stage], precision), stage, network=network.spec, gpu=gpu)
        for stage in STAGES
    }
    identity = replace(torch_identity({}), precision=StageRecipes(recipes=Recipe(weights=precision)))
    return gpu_engines(bundle, engines, identity, gpu=gpu, cubin=compiled(gpu))


class TorchGpuEngine(DeviceEngine):
    """One exported module in eager PyTorch, recorded."""

    def __init__(self, module: nn.Module, stage: Stage, *, network: NetworkSpec, gpu: Gpu) -> None:
        super().__init__(stage, network=network, gpu=gpu)
        self.device = torch.device("cuda", gpu.index)
        self._module = module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._names = tuple(network.contract(stage).outputs)
        self._binding = Lock()

    def scratch_bytes(self, batch: int) -> int:
        """0: each graph has a memory pool of PyTorch's."""
        return 0

    def bind(self, tensors: Addresses, *, batch: int, scratch: int, stream: Stream) -> "TorchGpuRun":
        inputs, outputs = (
            {name: self._tensor(tensors[name], (batch, *t.shape), t.dtype) for name, t in part.items()}
            for part in (self.contract.inputs, self.contract.outputs)
        )

        def compute() -> None:
            with self.device:  # new constants belong on the GPU
                results = dict(zip(self._names, self._module(**inputs), strict=True))
            for name, into in outputs.items():
                into.copy_(results[name])

        with self._binding:
            return TorchGpuRun(_record(compute, stream))

    def _tensor(self, address: int, shape: tuple[int, ...], dtype: str) -> Tensor:
        array = DeviceArray(gpu=self.gpu, address=address, shape=shape, dtype=np.dtype(dtype), owner=None)
        return from_dlpack(array)


class TorchGpuRun:
    """A module over fixed memory as a CUDA graph."""

    capturable = False
    """False: it is a graph already, which the pipeline launches between its own work."""

    def __init__(self, graph: torch.cuda.CUDAGraph) -> None:
        self._graph = graph

    def enqueue(self, stream: Stream) -> None:
        with torch.cuda.stream(_adopted(stream)):
            self._graph.replay()


def _record(compute: Callable[[], None], stream: Stream) -> torch.cuda.CUDAGraph:
    """Work as a graph that has its own memory. Other threads may use the card meanwhile."""
    own = _adopted(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode():
        with torch.cuda.stream(own):
            for _ in range(WARM_UP):
                compute()
        own.synchronize()
        with torch.cuda.graph(graph, stream=own, capture_error_mode="thread_local"):
            compute()
    return graph


def _adopted(stream: Stream) -> torch.cuda.ExternalStream:
    return torch.cuda.ExternalStream(stream.handle)  # type: ignore[no-untyped-call]


def load_network(bundle: Bundle) -> GlamNetwork:
    """The network with the weights of a bundle, on the CPU. Raises BundleError where it has no checkpoint."""
    network = load_weights(bundle.read(CHECKPOINT_FILE), bundle.network)
    assert isinstance(network, GlamNetwork)
    return network


def tf32(*, allowed: bool) -> None:
    """Whether FP32 convolutions and products may be computed with ten bits of mantissa."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def torch_ms(work: Callable[[], object], runs: Runs = RUNS) -> list[float]:
    """Milliseconds of PyTorch work by its events, runs queued one behind the other, after a warm-up."""
    warm_up(work, runs)
    torch.cuda.synchronize()
    times: list[float] = []
    start = perf_counter()
    while runs.goes_on(len(times), start):
        pairs = [(_event(), _event()) for _ in range(TOGETHER)]
        for before, after in pairs:
            before.record()
            work()
            after.record()
        torch.cuda.synchronize()
        times += [before.elapsed_time(after) for before, after in pairs]
    return times


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

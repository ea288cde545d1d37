"""PyTorch behind the contract of engines on a GPU: the pipeline can be checked where no other engine is to be had.

The modules are those that export writes into graphs, so a half precision is the bundle's. Each binding is a CUDA graph
of PyTorch's own. The fusion module composes a map that nobody reads; its time counts as glue.
"""

from collections.abc import Callable
from dataclasses import replace
from threading import Lock

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from glam_bench.gpu_check.bench import load_kernels
from glam_bench.gpu_check.context import Context
from glam_bench.gpu_check.torch_gpu import load_network, tf32
from glam_deploy.engines.base import OpenedEngines
from glam_deploy.gpu.device.arrays import DeviceArray
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.engines.base import Addresses, DeviceEngine, GpuEngines, on_gpu
from glam_deploy.networks import STAGES, NetworkSpec, Stage
from glam_deploy.precision import Precision, Recipe, StageRecipes
from glam_export.graphs import graph_modules, in_precision
from glam_export.torch_engine import torch_identity

WARM_UP = 3
"""Runs before one is recorded: cuDNN chooses its convolutions in the first."""


def open_torch(context: Context, precision: Precision) -> OpenedEngines:
    """The bundle's network on the GPU. Raises BundleError where it was exported without its checkpoint."""
    gpu = Gpu(context.options.device)
    tf32(allowed=False)
    torch.backends.cudnn.benchmark = True
    network = load_network(context)
    modules = graph_modules(network)
    engines = {
        stage: TorchGpuEngine(in_precision(modules[stage], precision), stage, network=network.spec, gpu=gpu)
        for stage in STAGES
    }
    identity = replace(torch_identity({}), precision=StageRecipes(recipes=Recipe(weights=precision)))
    return GpuEngines(engines=engines, identity=on_gpu(identity, gpu), gpu=gpu, kernels=load_kernels(gpu))


class TorchGpuEngine(DeviceEngine):
    """One exported module in eager PyTorch, recorded."""

    def __init__(self, module: nn.Module, stage: Stage, *, network: NetworkSpec, gpu: Gpu) -> None:
        super().__init__(stage, network=network, gpu=gpu)
        self.device = torch.device("cuda", gpu.index)
        self._module = module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._names = tuple(network.contract(stage).outputs)
        self._binding = Lock()

    def scratch_bytes(self, batch: int) -> int:
        """None: each graph has a pool of PyTorch's."""
        return 0

    def bind(self, tensors: Addresses, *, batch: int, scratch: int, stream: Stream) -> "TorchGpuRun":
        inputs, outputs = (
            {name: self._tensor(tensors[name], (batch, *t.shape), t.dtype) for name, t in part.items()}
            for part in (self.contract.inputs, self.contract.outputs)
        )

        def compute() -> None:
            with self.device:  # where constants are made
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
    """It is a graph already; the pipeline launches it among its own work."""

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

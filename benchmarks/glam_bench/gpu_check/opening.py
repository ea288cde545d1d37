"""The engine that a step is about, opened."""

from glam_bench.gpu_check.context import Context
from glam_deploy.bundle import open_bundle
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.registry import open_engines
from glam_deploy.precision import PRECISIONS
from glam_deploy.runtime.pipeline import Pipeline


def open_engine(context: Context) -> OpenedEngines:
    """What the step's argument names.

    "fp16@tensorrt-rtx": that flavour's engine in the bundle; "fp16@onnx-cuda": the graph in ONNX Runtime; "fp16@torch":
    the network in PyTorch.

    Raises what `registry.open_engines` raises.
    """
    name, _, library = context.argument.partition("@")
    precision = next(p for p in PRECISIONS if p == name)
    if library == "torch":
        from glam_bench.gpu_check.torch_engine import open_torch

        return open_torch(context, precision)
    bundle, device = open_bundle(context.bundle), context.options.device
    if library == "onnx-cuda":
        return open_engines("onnx-cuda", bundle, EngineOptions(precision=precision, device=device))
    return open_engines(precision, bundle, EngineOptions(flavour=library, device=device))


def pipeline_of(opened: OpenedEngines, patches: int) -> Pipeline:
    """For K patches; the engines are shared by all that are made from them."""
    return Pipeline(opened, patches=patches, provenance={})

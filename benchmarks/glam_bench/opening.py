"""Engines by name, and the pipeline around them, before they have passed a gate."""

from dataclasses import replace

from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.registry import OWNERS, open_engines
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS
from glam_deploy.precision import PRECISIONS
from glam_deploy.runtime.pipeline import Pipeline


def open_engine(name: str, bundle: Bundle, *, device: int | None = None, threads: int | None = None) -> OpenedEngines:
    """Open an engine of the registry ("onnx"), or one that is named with its library.

    "fp16@tensorrt-rtx": the engine of that TensorRT flavour in the bundle; "fp16@onnx-cuda-fp16": the engine
    onnx-cuda-fp16; "fp16@onnx-cuda": the fp16 graphs with the settings of onnx-cuda; "fp16@torch": the network in
    PyTorch on the GPU. `device`: index of the GPU. `threads`: of a CPU engine. Raises what `registry.open_engines`
    raises.
    """
    options = EngineOptions(device=device, threads=threads)
    engine, _, library = name.partition("@")
    if not library:
        return open_engines(engine, bundle, options)
    precision = next((p for p in PRECISIONS if p == engine), None)
    if precision is None or library in FLAVOURS:
        return open_engines(engine, bundle, replace(options, flavour=library))
    if library == "torch":
        from glam_bench.gpu.torch_engine import open_torch

        return open_torch(bundle, precision, device or 0)
    own = OWNERS[library].precision
    return open_engines(library, bundle, options if own else replace(options, precision=precision))


def pipeline_of(opened: OpenedEngines, patches: int) -> Pipeline:
    """A pipeline for K patches; all pipelines of the same engines share them."""
    # not by `load`, which refuses an engine that has not passed a gate
    return Pipeline(opened, patches=patches, provenance={})

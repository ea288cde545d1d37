"""OpenVINO engines on the CPU: FP32, BF16, INT8, Winograd and mixed precision. The only importer of openvino."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import openvino as ov
from openvino.frontend import (
    FrontEndManager,
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
)

from glam_deploy import bundle as bundles
from glam_deploy.bundle import Bundle
from glam_deploy.bundle.folder import winograd_files
from glam_deploy.bundle.onnx_file import require_plain_graph
from glam_deploy.engines import cpu
from glam_deploy.engines.base import Arrays, Engine, EngineIdentity, EngineOptions, OpenedEngines, Tensors
from glam_deploy.engines.cpu import within_cores
from glam_deploy.engines.model_cache import ModelCache, default_folder
from glam_deploy.errors import BackendBuildError, BackendRunError, BackendUnavailable, BundleError
from glam_deploy.memory import too_little_memory
from glam_deploy.networks import COMPOSED_MAP, GraphContract, NetworkSpec, Stage, Tensor
from glam_deploy.precision import FP32, MIXTURE_RECIPES, WINOGRAD_RECIPES, Float, Precision, Recipe, StageRecipes

# The first call initializes a static table under a C++ guard and may release the GIL. A second thread that waits for
# the guard while it holds the GIL then deadlocks (2026.4). Calling it at import is safe: only one thread runs this.
ov.Type.f32.to_dtype()

LIBRARY = f"openvino {ov.__version__}"

_FAILURES = (
    GeneralFailure, InitializationFailure, NotImplementedFailure, OpConversionFailure, OpValidationFailure,
)  # fmt: skip
"""Of the readers of models; they are no RuntimeError."""
PRECISION = "INFERENCE_PRECISION_HINT"
UNUSED = COMPOSED_MAP
"""Output that is removed from the fusion graph: 45 MB, which `Result.saliency` computes on request instead."""
BATCH = 1
"""Batch for which models are compiled, because shapes that are known then let OpenVINO fuse more operators; an engine
runs the rows of a larger batch one after another, as the host chain runs patches."""
ISA_LIMIT = "ONEDNN_MAX_CPU_ISA"
"""Environment variable that limits the instruction sets that the library uses."""


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Graph file and floating-point type of one stage."""

    file: str
    """Graph file of the bundle."""
    floats: Float
    """Type of the operations that are not INT8. Probabilities and pooling are always FP32, because OpenVINO lowers the
    precision of no operation after the last convolution."""


@dataclass(frozen=True, kw_only=True)
class EnginesPlan:
    """Name, stages and precision of engines, before files are read or models compiled."""

    name: str
    stages: Mapping[Stage, StagePlan]
    precision: StageRecipes


class OpenVinoEngine(Engine):
    """Compiled OpenVINO model; each run has its own infer request (thread-safe). Fusion has no output `saliency`."""

    def __init__(self, model: ov.CompiledModel, stage: Stage, *, network: NetworkSpec) -> None:
        super().__init__(stage, network=network, composed=False)
        self._model = model
        self._require_interface(_tensors(model.inputs, self.contract), _tensors(model.outputs, self.contract))

    def _run(self, inputs: Arrays) -> Arrays:
        request = self._model.create_infer_request()
        rows = len(next(iter(inputs.values())))
        found: list[Arrays] = []
        try:
            for row in range(rows):
                results = request.infer({name: values[row : row + 1] for name, values in inputs.items()})
                found.append({name: results[name].copy() for name in self.contract.outputs})
        except RuntimeError as error:
            raise BackendRunError(f"{self.stage} engine: OpenVINO {ov.__version__} failed: {error}") from error
        return {name: np.concatenate([out[name] for out in found]) for name in self.contract.outputs}


@cache
def core() -> ov.Core:
    """The only `ov.Core` of this process; it is never freed.

    OpenVINO's CPU plugin installs an alternate signal stack when the first model is compiled, and removes it with its
    Core. With several Cores, the last one that is freed restores the stack of a Core that was freed before: any signal,
    such as Ctrl-C, then causes a segmentation fault (2026.4; openvinotoolkit/openvino pull 11894).
    """
    return ov.Core()


def graph_engine(graph: bytes, stage: Stage, *, network: NetworkSpec, floats: Float = "fp32") -> OpenVinoEngine:
    """Compile an ONNX graph that is not in a bundle. Raises the errors of `open_engines`."""
    settings = _settings(floats, EngineOptions())
    return OpenVinoEngine(_compiled(graph, stage, settings), stage, network=network)


def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """Compile the graphs of a bundle: FP32, BF16, or the bundle's INT8 graphs.

    With bf16, and with int8 on a CPU with bf16 instructions, all operations that are not INT8 are BF16, except for the
    fusion stage, which is FP32. Raises BundleError, BackendUnavailable if the CPU has no bf16 instructions,
    BackendBuildError.
    """
    return _open(bundle, plan_engines(bundle, options), options)


def plan_engines(bundle: Bundle, options: EngineOptions) -> EnginesPlan:
    """Plan of the engines that `open_engines` opens. Raises BundleError if a graph is missing, BackendUnavailable."""
    is_int8 = options.precision == "int8"
    if options.precision == "bf16":
        _require_bf16()
    floats: Float = "bf16" if options.precision == "bf16" or (is_int8 and _has_bf16()) else "fp32"
    recipe = Recipe(weights="int8", floats=floats) if is_int8 else Recipe(weights=floats)
    return EnginesPlan(
        name="openvino" if options.precision == "fp32" else f"openvino-{options.precision}",
        stages={stage: _stage_plan(bundle, stage, recipe) for stage in bundle.network.stages},
        precision=StageRecipes(recipes=recipe),
    )


def open_winograd_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """Compile the FP32 graphs with the Winograd local graph. Raises BundleError, BackendBuildError."""
    return _open(bundle, plan_winograd_engines(bundle, options), options)


def plan_winograd_engines(bundle: Bundle, options: EngineOptions) -> EnginesPlan:
    """Plan of the Winograd engines. Raises BundleError if the bundle has no Winograd graph."""
    stages = {stage: StagePlan(file=file, floats="fp32") for stage, file in winograd_files(bundle).items()}
    return EnginesPlan(name="openvino-winograd", stages=stages, precision=StageRecipes(recipes=FP32))


def open_mixed_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """Compile each stage in the precision that the precision search selected (`glam-deploy export --precision auto`).

    Raises the errors of `open_engines`.
    """
    return _open(bundle, plan_mixed_engines(bundle, options), options)


def plan_mixed_engines(bundle: Bundle, options: EngineOptions) -> EnginesPlan:
    """Plan of the mixed engines. Raises BundleError without a precision search or a graph, BackendUnavailable."""
    chosen = _mixture(bundle)
    if any(recipe.rest == "bf16" for recipe in chosen.values()):
        _require_bf16()
    stages = {stage: _stage_plan(bundle, stage, recipe) for stage, recipe in chosen.items()}
    return EnginesPlan(name="openvino-mixed", stages=stages, precision=StageRecipes(recipes=chosen))


def _open(bundle: Bundle, plan: EnginesPlan, options: EngineOptions) -> OpenedEngines:
    options, stages = within_cores(options), plan.stages
    with ThreadPoolExecutor(len(stages)) as pool:  # reading and compiling release the GIL
        opened = pool.map(lambda stage: _engine(bundle, stage, stages[stage], options), stages)
        engines: dict[Stage, Engine] = dict(zip(stages, opened, strict=True))
    identity = EngineIdentity(
        name=plan.name,
        library=LIBRARY,
        device="cpu",
        precision=plan.precision,
        sha256={stage: bundle.files[one.file].sha256 for stage, one in stages.items()},
    )
    return OpenedEngines(engines=engines, identity=identity, streams=options.streams or 1)


def _stage_plan(bundle: Bundle, stage: Stage, recipe: Recipe) -> StagePlan:
    """Graph file and type of a stage. Fusion is always FP32. The int8 graph itself has the Winograd convolutions."""
    if recipe in WINOGRAD_RECIPES:
        return StagePlan(file=winograd_files(bundle)[stage], floats=recipe.rest)
    graph: Precision = "int8" if recipe.weights == "int8" else "fp32"
    file = bundles.graph_file(stage, graph)
    if file not in bundle.files:
        raise BundleError(
            f"{bundle.folder}: has no {file}. Export the checkpoint again with --precision {graph}, or choose the "
            f"engine openvino."
        )
    return StagePlan(file=file, floats="fp32" if stage == "fusion" else recipe.rest)


def _mixture(bundle: Bundle) -> Mapping[Stage, Recipe]:
    """Stage -> recipe of the precision search. Raises BundleError without a search or with unsupported recipes."""
    found = bundle.manifest.mixture or {}
    supported: dict[Stage, Sequence[Recipe]] = {
        "global": [recipe for recipe in MIXTURE_RECIPES if recipe.form == "direct"],
        "local": MIXTURE_RECIPES,
    }
    if any(found.get(stage) not in recipes for stage, recipes in supported.items()):
        mixture = ", ".join(f"{stage} {recipe}" for stage, recipe in found.items())
        reason = f"this release does not support its mixture ({mixture})" if mixture else "has no precision search"
        raise BundleError(f"{bundle.folder}: {reason}. Export the checkpoint again with --precision auto.")
    return {"global": found["global"], "local": found["local"], "fusion": FP32}


def _has_bf16() -> bool:
    return not cpu.features().isdisjoint(cpu.BF16)


def _require_bf16() -> None:
    """Raises BackendUnavailable without bf16 instructions: OpenVINO would silently compute in FP32."""
    if not _has_bf16():
        raise BackendUnavailable(f"bf16 needs a CPU with {' or '.join(cpu.BF16)}; {cpu.model()} has neither.")


def _engine(bundle: Bundle, stage: Stage, plan: StagePlan, options: EngineOptions) -> OpenVinoEngine:
    """Load a compiled stage from the cache, or compile it. The cache key has the graph's hash, so it is not read."""
    settings = _settings(plan.floats, options)
    cached = ModelCache(options.cache or default_folder())
    key = {
        "graph": bundle.files[plan.file].sha256,
        "library": LIBRARY,
        "settings": settings,
        "cpu": sorted(cpu.features()),
        "isa": os.environ.get(ISA_LIMIT),
        "without": UNUSED,
        "batch": BATCH,
    }
    blob = cached.read(key)
    model = _imported(blob, settings) if blob else None
    if model is None:
        model = _compiled(bundle.read(plan.file), stage, settings)
        exported = BytesIO()
        model.export_model(exported)
        cached.store(key, exported.getbuffer())
    return OpenVinoEngine(model, stage, network=bundle.network)


def _compiled(graph: bytes, stage: Stage, settings: Mapping[str, str]) -> ov.CompiledModel:
    try:
        source = read_graph(graph, stage)
        source.reshape({port: [BATCH, *list(port.partial_shape)[1:]] for port in source.inputs})
        model = core().compile_model(source, "CPU", settings)
    except (RuntimeError, MemoryError) as error:
        # on a CPU with bf16 instructions that this limit excludes, it fails with "object is not initialized" (2026.4)
        if settings[PRECISION] == "bf16" and ISA_LIMIT in os.environ:
            raise _other_type(stage, f"fails ({str(error).strip().splitlines()[-1]})", "bf16") from error
        rejects = f"{stage} graph: OpenVINO {ov.__version__} rejects it: {error}"
        raise too_little_memory(error) or BackendBuildError(rejects) from error
    _require_type(model, stage, settings[PRECISION])
    return model


def read_graph(graph: bytes, stage: Stage) -> ov.Model:
    """Parse an ONNX file and remove its output UNUSED. Raises BundleError, RuntimeError if OpenVINO rejects it."""
    require_plain_graph(graph, stage)
    model = _parsed(graph)
    for result in model.get_results():
        if UNUSED in result.input_value(0).get_names():
            model.remove_result(result)
    return model


def _parsed(graph: bytes) -> ov.Model:
    """By the reader of ONNX alone: `Core.read_model` asks the readers of all formats, and a file may be of two.

    Raises RuntimeError.
    """
    reader = FrontEndManager().load_by_framework("onnx")
    try:
        return reader.convert(reader.load(BytesIO(graph)))
    except _FAILURES as error:
        raise RuntimeError(str(error)) from error


def _require_type(model: ov.CompiledModel, stage: Stage, requested: str) -> None:
    if (found := model.get_property(PRECISION)) != getattr(ov.Type, requested):
        raise _other_type(stage, f"computes in {found}", requested)


def _other_type(stage: Stage, does: str, requested: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"{stage} engine: OpenVINO {ov.__version__} {does} on {cpu.model()}, expected {requested}. "
        f"{ISA_LIMIT} is {os.environ.get(ISA_LIMIT, 'not set')}; it must allow {' or '.join(cpu.BF16)}. Or choose "
        f"the engine openvino."
    )


def _settings(floats: Float, options: EngineOptions) -> dict[str, str]:
    # always set, because OpenVINO's default is bf16 on CPUs with bf16 instructions
    settings = {PRECISION: {"fp32": "f32", "bf16": "bf16"}[floats], "PERFORMANCE_HINT": "LATENCY"}
    if options.streams:
        settings |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(options.streams)}
    if options.threads:
        settings["INFERENCE_NUM_THREADS"] = str(options.threads)
    return settings


def _imported(blob: memoryview, settings: Mapping[str, str]) -> ov.CompiledModel | None:
    tensor = ov.Tensor(np.frombuffer(blob, np.uint8))  # takes half the time of a stream
    try:
        return core().import_model(tensor, "CPU", settings)
    except RuntimeError:  # unusable; the model is compiled again and the cache entry replaced
        return None


def _tensors(ports: Sequence[Any], contract: GraphContract) -> Tensors:
    """Name -> tensor, by the names of the contract.

    A port has two names if OpenVINO has moved a transposition behind the last operator.
    """
    known = contract.inputs.keys() | contract.outputs.keys()
    return {
        min(port.names & known, default=port.any_name): Tensor(
            dtype=port.element_type.to_dtype().name,
            shape=tuple(axis.get_length() for axis in list(port.partial_shape)[1:]),
        )
        for port in ports
    }

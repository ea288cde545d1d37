"""OpenVINO on the CPU, in the precision asked for. Owns openvino."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import openvino as ov

from glam_deploy import bundle as bundles
from glam_deploy.bundle import Bundle
from glam_deploy.bundle.folder import winograd_files
from glam_deploy.engines import cpu
from glam_deploy.engines.base import Arrays, Engine, EngineIdentity, EngineOptions, OpenedEngines, Tensors
from glam_deploy.engines.cpu import within_cores
from glam_deploy.engines.model_cache import ModelCache, default_folder
from glam_deploy.errors import BackendBuildError, BackendRunError, BackendUnavailable, BundleError
from glam_deploy.networks import COMPOSED_MAP, STAGES, GraphContract, NetworkSpec, Stage, Tensor
from glam_deploy.precision import FP32, MIXTURE_RECIPES, WINOGRAD, Float, Precision, Recipe, StageRecipes

# The first call fills a table behind a C++ guard and may release the GIL meanwhile; a second thread that then waits for
# the guard while it holds the GIL deadlocks the process (2026.4). During an import, only one thread can be here.
ov.Type.f32.to_dtype()

LIBRARY = f"openvino {ov.__version__}"

PRECISION = "INFERENCE_PRECISION_HINT"
UNUSED = COMPOSED_MAP
"""The output that is cut off the fusion graph: 45 MB, which a result composes from their parts when asked for them."""
ISA_LIMIT = "ONEDNN_MAX_CPU_ISA"
"""Environment variable that forbids the library what the CPU could do."""


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What a stage is compiled from and for."""

    file: str
    """Of the bundle."""
    floats: Float
    """What all computes in that is not in 8 bits. Probabilities and pooling are FP32 all the same: OpenVINO narrows
    nothing that comes after the last convolution."""


@dataclass(frozen=True, kw_only=True)
class EnginesPlan:
    """The engines of a bundle before anything is read or compiled."""

    name: str
    stages: Mapping[Stage, StagePlan]
    precision: StageRecipes


class OpenVinoEngine(Engine):
    """A compiled model; every run gets its own request, so that threads do not meet. Fusion gives no `saliency`."""

    def __init__(self, model: ov.CompiledModel, stage: Stage, *, network: NetworkSpec) -> None:
        super().__init__(stage, network=network, composed=False)
        self._model = model
        self._require_interface(_tensors(model.inputs, self.contract), _tensors(model.outputs, self.contract))

    def _run(self, inputs: Arrays) -> Arrays:
        request = self._model.create_infer_request()
        try:
            results = request.infer(dict(inputs))
        except RuntimeError as error:
            raise BackendRunError(f"{self.stage} engine: OpenVINO {ov.__version__} failed: {error}") from error
        return {name: results[name].copy() for name in self.contract.outputs}


@cache
def core() -> ov.Core:
    """The one OpenVINO of this process, for all that compile with it; never freed.

    OpenVINO's CPU plugin puts a stack for signal handlers in place when the first model is compiled, and takes it away
    with its Core. With several Cores the last to go puts back the stack of one that has gone before: from then on
    Ctrl-C, like any signal, ends the process with a segmentation fault (2026.4; openvinotoolkit/openvino pull 11894).
    """
    return ov.Core()


def graph_engine(graph: bytes, stage: Stage, *, network: NetworkSpec, floats: Float = "fp32") -> OpenVinoEngine:
    """An engine from an ONNX file that is in no bundle. Raises as `open_engines`."""
    settings = _settings(floats, EngineOptions())
    return OpenVinoEngine(_compiled(graph, stage, settings), stage, network=network)


def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """The three graphs of a bundle compiled by OpenVINO: in fp32, in bf16, or in 8 bits where its int8 graphs say so.

    With bf16, and with int8 on a CPU that has bf16, all else computes in bf16, but the fusion stage never. Raises
    BundleError, BackendUnavailable where the CPU lacks what bf16 needs, BackendBuildError.
    """
    return _open(bundle, plan_engines(bundle, options), options)


def plan_engines(bundle: Bundle, options: EngineOptions) -> EnginesPlan:
    """Raises BundleError where the bundle lacks a graph, BackendUnavailable as `open_engines`."""
    narrow = options.precision == "int8"
    if options.precision == "bf16":
        _require_bf16()
    floats: Float = "bf16" if options.precision == "bf16" or (narrow and _has_bf16()) else "fp32"
    recipe = Recipe(weights="int8", floats=floats) if narrow else Recipe(weights=floats)
    return EnginesPlan(
        name="openvino" if options.precision == "fp32" else f"openvino-{options.precision}",
        stages={stage: _stage_plan(bundle, stage, recipe) for stage in STAGES},
        precision=StageRecipes(recipes=recipe),
    )


def open_winograd_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """All in fp32, with the local graph in Winograd's form. Raises BundleError, BackendBuildError."""
    return _open(bundle, plan_winograd_engines(bundle, options), options)


def plan_winograd_engines(bundle: Bundle, options: EngineOptions) -> EnginesPlan:
    """Raises BundleError where the bundle lacks that graph."""
    stages = {stage: StagePlan(file=file, floats="fp32") for stage, file in winograd_files(bundle).items()}
    return EnginesPlan(name="openvino-winograd", stages=stages, precision=StageRecipes(recipes=FP32))


def open_mixed_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """Each stage in the precision that the bundle's precision search chose (`glam-deploy export --precision auto`).

    Raises as `open_engines`.
    """
    return _open(bundle, plan_mixed_engines(bundle, options), options)


def plan_mixed_engines(bundle: Bundle, options: EngineOptions) -> EnginesPlan:
    """Raises BundleError where no search was made or a graph is missing, BackendUnavailable as `open_engines`."""
    chosen = _mixture(bundle)
    if any(recipe.rest == "bf16" for recipe in chosen.values()):
        _require_bf16()
    stages = {stage: _stage_plan(bundle, stage, recipe) for stage, recipe in chosen.items()}
    return EnginesPlan(name="openvino-mixed", stages=stages, precision=StageRecipes(recipes=chosen))


def _open(bundle: Bundle, plan: EnginesPlan, options: EngineOptions) -> OpenedEngines:
    options, stages = within_cores(options), plan.stages
    with ThreadPoolExecutor(len(stages)) as pool:  # reading and compiling leave Python free
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
    """The fusion stage computes in FP32 whatever the recipe; Winograd's form beside 8 bits is in the int8 graph."""
    if recipe == WINOGRAD:
        return StagePlan(file=winograd_files(bundle)[stage], floats="fp32")
    graph: Precision = "int8" if recipe.weights == "int8" else "fp32"
    file = bundles.graph_file(stage, graph)
    if file not in bundle.files:
        raise BundleError(
            f"{bundle.folder}: has no {file}. Export the checkpoint again with --precision {graph}, or choose the "
            f"engine openvino."
        )
    return StagePlan(file=file, floats="fp32" if stage == "fusion" else recipe.rest)


def _mixture(bundle: Bundle) -> Mapping[Stage, Recipe]:
    """For every stage. Raises BundleError where no search was made, or by a release that knew other precisions."""
    found = bundle.manifest.mixture or {}
    known: dict[Stage, Sequence[Recipe]] = {
        "global": [recipe for recipe in MIXTURE_RECIPES if recipe.form == "direct"],
        "local": MIXTURE_RECIPES,
    }
    if any(found.get(stage) not in recipes for stage, recipes in known.items()):
        told = ", ".join(f"{stage} {recipe}" for stage, recipe in found.items())
        raise BundleError(
            f"{bundle.folder}: no precision search was made for it"
            + (f", or by a release with other mixtures (its mixture is {told})" if told else "")
            + ". Export the checkpoint again with --precision auto."
        )
    return {"global": found["global"], "local": found["local"], "fusion": FP32}


def _has_bf16() -> bool:
    return not cpu.features().isdisjoint(cpu.BF16)


def _require_bf16() -> None:
    """OpenVINO takes bf16 for a hint: without the hardware it would compute in fp32 and not say so."""
    if not _has_bf16():
        raise BackendUnavailable(f"bf16 needs a CPU with {' or '.join(cpu.BF16)}; {cpu.model()} has neither.")


def _engine(bundle: Bundle, stage: Stage, plan: StagePlan, options: EngineOptions) -> OpenVinoEngine:
    """From the cache where it is there, without reading the graph: it was compiled from bytes of the same hash."""
    settings = _settings(plan.floats, options)
    cached = ModelCache(options.cache or default_folder())
    key = {
        "graph": bundle.files[plan.file].sha256,
        "library": LIBRARY,
        "settings": settings,
        "cpu": sorted(cpu.features()),
        "isa": os.environ.get(ISA_LIMIT),
        "without": UNUSED,
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
        model = core().compile_model(read_graph(graph), "CPU", settings)
    except RuntimeError as error:
        raise BackendBuildError(f"{stage} graph: OpenVINO {ov.__version__} refuses it: {error}") from error
    _require_type(model, stage, settings[PRECISION])
    return model


def read_graph(graph: bytes) -> ov.Model:
    """An ONNX file without its output UNUSED. Raises RuntimeError for what is none."""
    model = core().read_model(graph, b"")
    for result in model.get_results():
        if UNUSED in result.input_value(0).get_names():
            model.remove_result(result)
    return model


def _require_type(model: ov.CompiledModel, stage: Stage, asked: str) -> None:
    if (found := model.get_property(PRECISION)) != getattr(ov.Type, asked):
        raise BackendUnavailable(
            f"{stage} engine: asked to compute in {asked}, OpenVINO {ov.__version__} chose {found} on "
            f"{cpu.model()}. {ISA_LIMIT} is {os.environ.get(ISA_LIMIT, 'not set')}; it must allow "
            f"{' or '.join(cpu.BF16)}. Or choose the engine openvino."
        )


def _settings(floats: Float, options: EngineOptions) -> dict[str, str]:
    # by default OpenVINO computes in bf16 wherever the CPU can: that is another precision, never taken unasked
    settings = {PRECISION: {"fp32": "f32", "bf16": "bf16"}[floats], "PERFORMANCE_HINT": "LATENCY"}
    if options.streams:
        settings |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(options.streams)}
    if options.threads:
        settings["INFERENCE_NUM_THREADS"] = str(options.threads)
    return settings


def _imported(blob: memoryview, settings: Mapping[str, str]) -> ov.CompiledModel | None:
    tensor = ov.Tensor(np.frombuffer(blob, np.uint8))  # faster than a stream by half
    try:
        return core().import_model(tensor, "CPU", settings)
    except RuntimeError:  # as good as none; it is compiled anew and replaced
        return None


def _tensors(ports: Sequence[Any], contract: GraphContract) -> Tensors:
    """By the contract's names: where OpenVINO moves a transposition behind the last operator, a port has two."""
    known = contract.inputs.keys() | contract.outputs.keys()
    return {
        min(port.names & known, default=port.any_name): Tensor(
            dtype=port.element_type.to_dtype().name,
            shape=tuple(axis.get_length() for axis in list(port.partial_shape)[1:]),
        )
        for port in ports
    }

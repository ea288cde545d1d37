"""ONNX Runtime on the CPU: the default engine. `gpu.engines.onnxruntime_cuda` uses functions of this module.

FP16 and BF16 graphs run on the CPU too, for measuring their accuracy; on the CPU they are not faster than FP32.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime as ort

from glam_deploy.bundle import Bundle, graph_file
from glam_deploy.bundle.folder import winograd_files
from glam_deploy.bundle.onnx_file import require_plain_graph
from glam_deploy.engines.base import Arrays, Engine, EngineIdentity, EngineOptions, OpenedEngines, Tensors
from glam_deploy.engines.cpu import within_cores
from glam_deploy.errors import BackendBuildError, BackendRunError
from glam_deploy.memory import too_little_memory
from glam_deploy.networks import NetworkSpec, Stage, Tensor
from glam_deploy.precision import Recipe, StageRecipes

LIBRARY = f"onnxruntime {ort.__version__}"
CPU = "CPUExecutionProvider"
ONLY_FATAL = 4
"""Log level of ONNX Runtime; its errors are raised as exceptions, so they are not logged too."""
DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}
"""ONNX Runtime's type name -> numpy's; graphs of a bundle have no other types."""

Files = Mapping[Stage, str]


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime session on the CPU, created from the verified bytes of a stage's graph."""

    def __init__(self, graph: bytes, stage: Stage, options: EngineOptions, *, network: NetworkSpec) -> None:
        super().__init__(stage, network=network)
        settings = ort.SessionOptions()
        if options.threads:
            settings.intra_op_num_threads = options.threads
        self._session = open_session(stage, graph, settings, CPU)
        self._require_interface(*interface(self._session))

    def _run(self, inputs: Arrays) -> Arrays:
        names = list(self.contract.outputs)
        try:
            return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
        except Exception as error:  # as in open_session
            raise failed(self.stage, error) from error


def open_session(stage: Stage, graph: bytes, settings: Any, provider: Any) -> ort.InferenceSession:
    """Create a session for an ONNX graph that uses one execution provider.

    Raises BundleError, BackendBuildError, BackendUnavailable if there is too little memory.
    """
    require_plain_graph(graph, stage)
    settings.log_severity_level = ONLY_FATAL
    try:
        # enable_fallback=0: by default the binding retries on the CPU after an error of a provider
        return ort.InferenceSession(graph, settings, providers=[provider], enable_fallback=0)
    except Exception as error:  # the binding raises bare subclasses of Exception, one for each status
        rejects = f"{stage} graph: ONNX Runtime {ort.__version__} rejects it: {error}"
        raise too_little_memory(error) or BackendBuildError(rejects) from error


def failed(stage: Stage, error: Exception) -> BackendRunError:
    """The error to raise for a failed run of a session."""
    return BackendRunError(f"{stage} engine: ONNX Runtime {ort.__version__} failed: {error}")


def interface(session: ort.InferenceSession) -> tuple[Tensors, Tensors]:
    """Inputs and outputs of a session."""
    return _tensors(session.get_inputs()), _tensors(session.get_outputs())


def _tensors(values: Sequence[ort.NodeArg]) -> Tensors:
    return {v.name: Tensor(dtype=DTYPES.get(v.type, v.type), shape=tuple(v.shape[1:])) for v in values}


def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """Open the graphs of a bundle as sessions on the CPU. Raises BundleError, BackendBuildError."""
    return _open_on_cpu("onnx", bundle, options, graph_files(bundle, options))


def open_winograd_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """Open the FP32 graphs with the Winograd local graph on the CPU. Raises BundleError, BackendBuildError."""
    return _open_on_cpu("onnx-winograd", bundle, options, winograd_files(bundle))


def _open_on_cpu(name: str, bundle: Bundle, options: EngineOptions, files: Files) -> OpenedEngines:
    options = within_cores(options)
    engines = {
        stage: OnnxRuntimeEngine(bundle.read(file), stage, options, network=bundle.network)
        for stage, file in files.items()
    }
    return OpenedEngines(engines=engines, identity=identity_of(name, bundle, options, files))


def plan_winograd_engines(bundle: Bundle, options: EngineOptions) -> Files:
    """Files of the Winograd engines. Raises BundleError if the bundle has no Winograd graph."""
    return winograd_files(bundle)


def graph_files(bundle: Bundle, options: EngineOptions) -> Files:
    """Stage -> graph file in the precision of `options`."""
    return {stage: graph_file(stage, options.precision) for stage in bundle.network.stages}


def identity_of(name: str, bundle: Bundle, options: EngineOptions, files: Files) -> EngineIdentity:
    """Identity of an ONNX Runtime engine on the CPU that runs `files` of the bundle."""
    return EngineIdentity(
        name=name,
        library=LIBRARY,
        device="cpu",
        precision=StageRecipes(recipes=Recipe(weights=options.precision)),
        sha256={stage: bundle.files[file].sha256 for stage, file in files.items()},
    )

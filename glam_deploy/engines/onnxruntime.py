"""ONNX Runtime on the CPU: the default engine, in every install. `gpu.engines.onnxruntime_cuda` shares its sessions.

A half graph runs on the CPU too, to show what its types cost in accuracy; there it is no faster.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime as ort

from glam_deploy.bundle import Bundle, graph_file
from glam_deploy.bundle.folder import winograd_files
from glam_deploy.engines.base import Arrays, Engine, EngineIdentity, EngineOptions, OpenedEngines, Tensors
from glam_deploy.engines.cpu import within_cores
from glam_deploy.errors import BackendBuildError, BackendRunError
from glam_deploy.networks import STAGES, NetworkSpec, Stage, Tensor
from glam_deploy.precision import Recipe, StageRecipes

LIBRARY = f"onnxruntime {ort.__version__}"
CPU = "CPUExecutionProvider"
ONLY_FATAL = 4
"""Log level; what ONNX Runtime reports as an error reaches the caller as an exception."""
DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}
"""ONNX Runtime's name of a type -> numpy's; another type is no graph of ours."""

Files = Mapping[Stage, str]


class OnnxRuntimeEngine(Engine):
    """A session on the CPU over the bytes of a stage's graph, so that what was hashed is what runs."""

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
    settings.log_severity_level = ONLY_FATAL
    try:
        # by default the binding answers an error of a provider with a second try on the CPU
        return ort.InferenceSession(graph, settings, providers=[provider], enable_fallback=0)
    except Exception as error:  # the binding raises bare subclasses of Exception, one for each status
        raise BackendBuildError(f"{stage} graph: ONNX Runtime {ort.__version__} refuses it: {error}") from error


def failed(stage: Stage, error: Exception) -> BackendRunError:
    return BackendRunError(f"{stage} engine: ONNX Runtime {ort.__version__} failed: {error}")


def interface(session: ort.InferenceSession) -> tuple[Tensors, Tensors]:
    return _tensors(session.get_inputs()), _tensors(session.get_outputs())


def _tensors(values: Sequence[ort.NodeArg]) -> Tensors:
    return {v.name: Tensor(dtype=DTYPES.get(v.type, v.type), shape=tuple(v.shape[1:])) for v in values}


def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """The three graphs of a bundle as sessions on the CPU. Raises BundleError, BackendBuildError."""
    return _open_on_cpu("onnx", bundle, options, graph_files(options))


def open_winograd_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """The same in FP32, with the local graph in Winograd's form. Raises BundleError, BackendBuildError."""
    return _open_on_cpu("onnx-winograd", bundle, options, winograd_files(bundle))


def _open_on_cpu(name: str, bundle: Bundle, options: EngineOptions, files: Files) -> OpenedEngines:
    options = within_cores(options)
    engines = {
        stage: OnnxRuntimeEngine(bundle.read(file), stage, options, network=bundle.network)
        for stage, file in files.items()
    }
    return OpenedEngines(engines=engines, identity=identity_of(name, bundle, options, files))


def plan_winograd_engines(bundle: Bundle, options: EngineOptions) -> Files:
    """Raises BundleError where the bundle lacks that graph."""
    return winograd_files(bundle)


def graph_files(options: EngineOptions) -> Files:
    return {stage: graph_file(stage, options.precision) for stage in STAGES}


def identity_of(name: str, bundle: Bundle, options: EngineOptions, files: Files) -> EngineIdentity:
    return EngineIdentity(
        name=name,
        library=LIBRARY,
        device="cpu",
        precision=StageRecipes(recipes=Recipe(weights=options.precision)),
        sha256={stage: bundle.files[file].sha256 for stage, file in files.items()},
    )

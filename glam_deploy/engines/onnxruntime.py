"""ONNX Runtime on the CPU: the default engine, in every install. Owns onnxruntime.

A half graph runs here too, to show what its types cost in accuracy; on a CPU it is no faster.
"""

from collections.abc import Sequence

import onnxruntime as ort

from glam_deploy import bundle as bundles
from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import Arrays, Axes, Engine, EngineOptions, OpenedEngines
from glam_deploy.errors import BackendBuildError, BackendRunError
from glam_deploy.spec import STAGES, Stage

PROVIDER = "CPUExecutionProvider"
ONLY_FATAL = 4
"""Log level; what ONNX Runtime reports as an error reaches the caller as an exception."""


class OnnxRuntimeEngine(Engine):
    """A session over the bytes of a stage's graph, so that what was hashed is what runs."""

    def __init__(self, graph: bytes, stage: Stage, options: EngineOptions, *, fusion_head: bool) -> None:
        super().__init__(stage, fusion_head=fusion_head)
        session_options = ort.SessionOptions()
        session_options.log_severity_level = ONLY_FATAL
        if options.threads:
            session_options.intra_op_num_threads = options.threads
        try:
            self._session = ort.InferenceSession(graph, session_options, providers=[PROVIDER])
        except Exception as error:  # the binding raises bare subclasses of Exception, one for each status
            raise BackendBuildError(f"{stage} graph: ONNX Runtime {ort.__version__} refuses it: {error}") from error
        self._require_interface(_axes(self._session.get_inputs()), _axes(self._session.get_outputs()))

    def _run(self, inputs: Arrays) -> Arrays:
        names = list(self.contract.outputs)
        try:
            return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
        except Exception as error:  # as above
            raise BackendRunError(f"{self.stage} engine: ONNX Runtime {ort.__version__} failed: {error}") from error


def _axes(values: Sequence[ort.NodeArg]) -> Axes:
    return {value.name: tuple(value.shape[1:]) for value in values}


def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """The three graphs of a bundle as ONNX Runtime sessions. Raises BundleError, BackendBuildError."""
    files = {stage: bundles.graph_file(stage, options.precision) for stage in STAGES}
    engines = {
        stage: OnnxRuntimeEngine(bundle.read(file), stage, options, fusion_head=bundle.fusion_head)
        for stage, file in files.items()
    }
    provenance = {
        "name": "onnx",
        "library": f"onnxruntime {ort.__version__}",
        "device": "cpu",
        "precision": options.precision,
        "sha256": {stage: bundle.files[file]["sha256"] for stage, file in files.items()},
    }
    return OpenedEngines(engines=engines, provenance=provenance)

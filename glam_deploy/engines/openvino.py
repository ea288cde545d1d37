"""OpenVINO on the CPU, held to FP32. Owns openvino."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import openvino as ov

from glam_deploy import bundle as bundles
from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import Arrays, Engine, EngineOptions, OpenedEngines, Tensors
from glam_deploy.errors import BackendBuildError, BackendRunError
from glam_deploy.spec import STAGES, Stage, Tensor


class OpenVinoEngine(Engine):
    """A compiled model; every run gets its own request, so that threads do not meet."""

    def __init__(self, bundle: Bundle, stage: Stage, options: EngineOptions) -> None:
        super().__init__(stage, fusion_head=bundle.fusion_head)
        # by default OpenVINO computes in bf16 wherever the CPU can: that is another precision, never taken unasked
        config: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if options.threads:
            config["INFERENCE_NUM_THREADS"] = options.threads
        graph = bundle.read(bundles.graph_file(stage))
        try:
            self._model = core().compile_model(core().read_model(graph, b""), "CPU", config)
        except RuntimeError as error:
            raise BackendBuildError(f"{stage} graph: OpenVINO {ov.__version__} refuses it: {error}") from error
        self._require_interface(_tensors(self._model.inputs), _tensors(self._model.outputs))

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


def _tensors(ports: Sequence[Any]) -> Tensors:
    return {
        port.any_name: Tensor(
            dtype=port.element_type.to_dtype().name,
            shape=tuple(axis.get_length() for axis in list(port.partial_shape)[1:]),
        )
        for port in ports
    }


def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """The three graphs of a bundle compiled by OpenVINO. Raises BundleError, BackendBuildError."""
    engines = {stage: OpenVinoEngine(bundle, stage, options) for stage in STAGES}
    provenance = {
        "name": "openvino",
        "library": f"openvino {ov.__version__}",
        "device": "cpu",
        "precision": "fp32",
        "sha256": {stage: bundle.files[bundles.graph_file(stage)]["sha256"] for stage in STAGES},
    }
    return OpenedEngines(engines=engines, provenance=provenance)

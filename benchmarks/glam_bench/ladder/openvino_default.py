"""OpenVINO with its default settings: the bundle's graphs, compiled without precision, threads or cache being set."""

from glam_deploy.bundle import Bundle, graph_file
from glam_deploy.engines.base import Arrays, Engine, EngineIdentity, OpenedEngines
from glam_deploy.engines.openvino import LIBRARY, core, read_graph
from glam_deploy.networks import Stage
from glam_deploy.precision import StageRecipes


class DefaultEngine(Engine):
    """A compiled model with one request."""

    def __init__(self, bundle: Bundle, stage: Stage) -> None:
        # without the composed map, because every rung composes it from its parts
        super().__init__(stage, network=bundle.network, composed=False)
        model = core().compile_model(read_graph(bundle.read(graph_file(stage)), stage), "CPU")
        self.precision = str(model.get_property("INFERENCE_PRECISION_HINT").to_string())
        self._request = model.create_infer_request()

    def _run(self, inputs: Arrays) -> Arrays:
        results = self._request.infer(dict(inputs))
        return {name: results[name].copy() for name in self.contract.outputs}


def open_default(bundle: Bundle) -> OpenedEngines:
    """The precision is what OpenVINO chooses: bf16 where the processor has it, else f32."""
    engines = {stage: DefaultEngine(bundle, stage) for stage in bundle.network.stages}
    precision = {"f32": "fp32", "f16": "fp16"}.get(found := engines["global"].precision, found)
    identity = EngineIdentity(
        name="openvino-default",
        library=LIBRARY,
        device="cpu",
        precision=StageRecipes.from_json(precision),
        sha256={},
    )
    return OpenedEngines(engines=dict(engines), identity=identity)

"""Half graphs on a CPU: FP32 arithmetic, with every half tensor rounded to its type.

A half engine with FP32 accumulation computes the same, except for fused operators. ONNX Runtime alone is no substitute:
it has no bf16 convolution for CPUs, and in an fp16 graph it may keep tensors in FP32 between operators.
"""

import onnx
from onnx import NodeProto, TensorProto, helper

from glam_deploy.bundle import Bundle, graph_file
from glam_deploy.engines.base import Arrays, Engine, EngineOptions
from glam_deploy.engines.onnxruntime import OnnxRuntimeEngine
from glam_deploy.networks import Stage
from glam_deploy.precision import Precision
from glam_export.graphs.onnx_file import tensor_types

HALF = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


class RoundedEngine(OnnxRuntimeEngine):
    """Runs a half graph that `rounded` made.

    Its outputs may hold NaN and infinities, because fp16 overflows at 65504 and the parity check must detect that.
    """

    def _require_finite(self, arrays: Arrays, remedy: str) -> None:
        pass


def rounded_engines(bundle: Bundle, precision: Precision) -> dict[Stage, Engine]:
    """The stages that have graphs in a half precision: global and local. Raises BundleError."""
    files = {
        stage: file for stage in bundle.network.stages if (file := graph_file(stage, precision)) != graph_file(stage)
    }
    options = EngineOptions()
    return {
        stage: RoundedEngine(rounded(bundle.read(file)), stage, options, network=bundle.network)
        for stage, file in files.items()
    }


def rounded(graph: bytes) -> bytes:
    """Half ONNX file -> the same graph in FP32, with each half tensor cast to half and back."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph))
    half = {name: kind for name, kind in tensor_types(model.graph).items() if kind in HALF}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += [node] if node.op_type == "Cast" else _between_casts(node, half)
    for items in (model.graph.node, model.graph.value_info):
        del items[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _between_casts(node: NodeProto, half: dict[str, int]) -> list[NodeProto]:
    """The node on FP32 copies of its half tensors; the half tensors keep their names and types."""
    before, after = [], []
    for i, name in enumerate(node.input):
        if name in half:
            node.input[i] = f"{node.name}.{name}"
            before.append(helper.make_node("Cast", [name], [node.input[i]], to=TensorProto.FLOAT))
    for i, name in enumerate(node.output):
        if name in half:
            node.output[i] = f"{node.name}.{name}"
            after.append(helper.make_node("Cast", [node.output[i]], [name], to=half[name]))
    return [*before, node, *after]

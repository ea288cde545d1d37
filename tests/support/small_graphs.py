"""A local stage of a handful of operators that keeps the contract: what quantizes and compiles in a blink."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from glam_deploy.networks import GLAM, GLAM_CONCATENATION, glam

CHANNELS = 4
CONTRACT = GLAM_CONCATENATION.contract("local")


def small_local(seed: int = 0, channels: int = CHANNELS) -> bytes:
    """Stem (a quarter of the size), one residual block, head with a sigmoid; z_k is a mean, brought to its length."""
    rng = np.random.default_rng(seed)
    shapes = {
        "stem.weight": (channels, 1, 4, 4),
        "blocks.0.conv1.weight": (channels, channels, 3, 3),
        "blocks.0.conv1.bias": (channels,),
        "blocks.0.conv2.weight": (channels, channels, 3, 3),
        "head.weight": (2, channels, 1, 1),
        "to_z": (channels, glam.Z_PATCH),
    }
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.6 / channels**0.5, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    around = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["patches", "stem.weight"], ["a"], "stem", strides=[4, 4]),
        helper.make_node("Relu", ["a"], ["b"], "stem_relu"),
        helper.make_node("Conv", ["b", "blocks.0.conv1.weight", "blocks.0.conv1.bias"], ["c"], "conv1", **around),
        helper.make_node("Relu", ["c"], ["d"], "relu1"),
        helper.make_node("Conv", ["d", "blocks.0.conv2.weight"], ["e"], "conv2", **around),
        helper.make_node("Add", ["b", "e"], ["f"], "sum"),
        helper.make_node("Relu", ["f"], ["g"], "relu2"),
        helper.make_node("Conv", ["g", "head.weight"], ["h"], "head"),
        helper.make_node("Sigmoid", ["h"], ["saliency_patches"], "sigmoid"),
        helper.make_node("ReduceMean", ["g", "axes"], ["m"], "mean", keepdims=0),
        helper.make_node("MatMul", ["m", "to_z"], ["z_k"], "z"),
    ]
    weights.append(numpy_helper.from_array(np.array([2, 3], np.int64), "axes"))
    inputs, outputs = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", *t.shape]) for n, t in tensors.items()]
        for tensors in (CONTRACT.inputs, CONTRACT.outputs)
    )
    graph = helper.make_graph(nodes, "small_local", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def patches(count: int, seed: int = 1) -> np.ndarray:
    """Standardized, as the local stage gets them."""
    return np.random.default_rng(seed).normal(size=(count, 1, GLAM.patches.side, GLAM.patches.side)).astype(np.float32)

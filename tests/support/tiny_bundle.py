"""A whole bundle of a handful of operators, which the real command line opens and runs in a fraction of a second.

No lesion finder: cells above half of the brightest are benign, above four fifths malignant. Nothing needs to be
installed in the process that uses it, so it also serves processes that are started by others.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from glam_deploy.bundle import graph_file
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, Stage, glam
from support.bundles import facts, write_manifest

SLOPE = (10.0, 20.0)
OFFSET = (-5.0, -16.0)
"""Saliency of a cell is sigmoid(slope * brightness + offset): benign, malignant; the brightest cell's is 1."""
DARKEST = 0.1
"""In place of the brightest cell's standardized value, where there is nothing but background."""


def write_tiny_bundle(folder: Path) -> Path:
    """Make `folder` with graphs and manifest, and give it back. Its engine is "onnx", which needs no gate."""
    (folder / "graphs").mkdir(parents=True)
    for stage, model in {"global": _global(), "local": _local(), "fusion": _fusion()}.items():
        onnx.checker.check_model(model, full_check=True)
        (folder / graph_file(stage)).write_bytes(model.SerializeToString())
    write_manifest(folder, facts())
    return folder


def _global() -> onnx.ModelProto:
    nodes = [
        *_saliency("image", "saliency_global"),
        helper.make_node("ReduceMax", ["saliency_global", "places"], ["scores"], keepdims=0),
        helper.make_node("Unsqueeze", ["scores", "one"], ["row"]),
        helper.make_node("Concat", ["row", "row", "row"], ["y_scale"], axis=1),
        helper.make_node("MatMul", ["scores", "to_z"], ["z_g"]),
    ]
    split = _cells(GLAM.input_shape, GLAM.cell)
    return _model("global", nodes, split=split, to_z=np.ones((2, glam.Z_GLOBAL), np.float32), one=_int64(1))


def _local() -> onnx.ModelProto:
    nodes = [
        *_saliency("patches", "saliency_patches"),
        helper.make_node("ReduceMean", ["saliency_patches", "places"], ["scores"], keepdims=0),
        helper.make_node("MatMul", ["scores", "to_z"], ["z_k"]),
    ]
    split = _cells((GLAM.patches.side, GLAM.patches.side), GLAM.grid_cell)
    return _model("local", nodes, split=split, to_z=np.ones((2, glam.Z_PATCH), np.float32))


def _fusion() -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMean", ["y_scale", "one"], ["y_global"], keepdims=0),
        helper.make_node("ReduceMax", ["saliency_patches", "all"], ["y_local"], keepdims=0),
        helper.make_node("Resize", ["saliency_global", "", "scales"], ["saliency"], mode="nearest"),
    ]
    scales = np.array([1, 1, GLAM.cell, GLAM.cell], np.float32)
    return _model("fusion", nodes, one=_int64(1), all=_int64(1, 3, 4), scales=scales)


def _saliency(source: str, target: str) -> list[onnx.NodeProto]:
    return [
        # the mean of each cell, in a thirtieth of the time of AveragePool. Columns come first: ONNX Runtime sums values
        # that lie one behind the other in an order that depends on the address of the array, so that of a server
        helper.make_node("Reshape", [source, "split"], ["cells"]),
        helper.make_node("ReduceMean", ["cells", "along_columns"], ["means_of_columns"], keepdims=0),
        helper.make_node("ReduceMean", ["means_of_columns", "along_rows"], ["means_of_cells"], keepdims=0),
        helper.make_node("Unsqueeze", ["means_of_cells", "channel"], ["means"]),
        helper.make_node("ReduceMax", ["means", "places"], ["brightest"]),
        helper.make_node("Max", ["brightest", "darkest"], ["most"]),
        helper.make_node("Div", ["means", "most"], ["brightness"]),
        helper.make_node("Conv", ["brightness", "slope", "offset"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], [target]),
    ]


def _cells(shape: tuple[int, int], cell: int) -> np.ndarray:
    """The shape of images [batch, 1, rows, columns] when both axes are divided into cells."""
    rows, columns = shape
    return _int64(-1, rows // cell, cell, columns // cell, cell)


def _model(stage: Stage, nodes: list[onnx.NodeProto], **constants: np.ndarray) -> onnx.ModelProto:
    if stage != "fusion":
        constants["slope"] = np.array(SLOPE, np.float32).reshape(2, 1, 1, 1)
        constants["offset"] = np.array(OFFSET, np.float32)
        constants |= {"darkest": np.array(DARKEST, np.float32), "places": _int64(2, 3)}
        constants |= {"along_rows": _int64(3), "along_columns": _int64(2), "channel": _int64(1)}
    contract = GLAM_CONCATENATION.contract(stage)
    inputs, outputs = (
        [helper.make_tensor_value_info(n, _TYPES[t.dtype], ["batch", *t.shape]) for n, t in tensors.items()]
        for tensors in (contract.inputs, contract.outputs)
    )
    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, f"tiny_{stage}", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def _int64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)

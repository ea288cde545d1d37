"""FP32 graph -> the same graph with some or all convolutions in 8 bits, by NNCF. The only importer of nncf.

NNCF inserts QuantizeLinear / DequantizeLinear pairs before operators that can compute in 8 bits, with scales measured
on calibration data, and quantizes weights (Jacob et al. 2018). A node can be restored afterwards: it then reads its
original inputs. Therefore one run of NNCF serves every mixture of narrow and wide blocks. All operators except
convolutions are always restored: sums, probabilities and pooling are FP32 in each precision.
"""

import io
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from math import prod
from types import ModuleType

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from glam_deploy.engines.base import Arrays
from glam_deploy.errors import UsageError
from glam_deploy.installation import require

Blocks = Mapping[str, tuple[str, ...]]
"""Name of a block -> names of its nodes, in the order of the graph."""

DEPTH = {"blocks": 2, "stages": 3}
"""First part of a weight's name -> how many parts name its block: blocks.3, stages.2.1; for all others one."""
IGNORED = ("Add", "Mul", "MaxPool")
"""Ignored scope of NNCF, by operator: behind a quantized node NNCF inserts no pair, but the next convolution needs one.
(ONNX Runtime 1.32 also refuses signed 8-bit inputs of MaxPool.)"""
WEIGHT = 1
"""Index of a convolution's kernel among its inputs."""


def quantized(graph: bytes, calibration: Sequence[Arrays], keep: Collection[str] = ()) -> bytes:
    """FP32 ONNX file -> the graph with its convolutions in 8 bits, except for the nodes named in `keep`.

    `calibration`: inputs of the graph, from real images; at least one. Weights use 7 of the 8 bits, because processors
    without VNNI add pairs of products in 16 bits, which products of 8 bits overflow. Raises UsageError for unknown
    nodes or no calibration data, BackendUnavailable if NNCF is missing.
    """
    if not calibration:
        raise UsageError("no calibration data are given: a graph in 8 bits needs at least one image")
    return widened(graph, _all_narrow(graph, calibration), keep)


def widened(graph: bytes, narrow: bytes, keep: Collection[str]) -> bytes:
    """`narrow`, which `quantized` made from `graph`, with the nodes in `keep` restored to FP32. Raises UsageError."""
    wide, model = onnx.load_from_string(graph), onnx.load_from_string(narrow)
    original = {node.name: node for node in wide.graph.node}
    if unknown := sorted(set(keep) - original.keys()):
        raise UsageError(f"the graph has no node {', '.join(unknown)}; `quantize.blocks` names them")
    restored = {*keep, *(name for name, node in original.items() if node.op_type != "Conv")}
    for node in model.graph.node:
        if node.name in restored:
            node.input[:] = original[node.name].input
    again = {name for node in restored for name in original[node].input}
    # NNCF corrects biases and keeps their names, therefore restored nodes need the original ones
    constants = [t for t in model.graph.initializer if t.name not in again]
    constants += [t for t in wide.graph.initializer if t.name in again]
    _tidy(model, constants)
    return bytes(model.SerializeToString(deterministic=True))


def blocks(graph: bytes) -> Blocks:
    """The residual blocks of an FP32 graph, its `stem` and its `head` (`heads`), with the names of their nodes.

    A node belongs to the block of its weights, otherwise to the last block that it reads from. A sigmoid and the nodes
    after it belong to no block.
    """
    inner = onnx.load_from_string(graph).graph
    weights, late = {tensor.name for tensor in inner.initializer}, _after_sigmoid(inner)
    of_tensor: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for node in inner.node:
        own = [_block_of(name) for name in node.input if name in weights and "." in name]
        order = list(members)
        block = (
            own[0] if own else max((of_tensor[n] for n in node.input if n in of_tensor), key=order.index, default="")
        )
        if block and node.name not in late:
            members.setdefault(block, []).append(node.name)
            of_tensor |= dict.fromkeys(node.output, block)
    return {name: tuple(nodes) for name, nodes in members.items()}


def multiply_adds(graph: bytes) -> Mapping[str, int]:
    """Multiplications of each convolution for a batch of one, by name of its node."""
    inner = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph)).graph
    kernels = {tensor.name: prod(tensor.dims) for tensor in inner.initializer}
    pixels = {value.name: _pixels(value) for value in (*inner.value_info, *inner.output)}
    found = [node for node in inner.node if node.op_type == "Conv"]
    return {node.name: kernels[node.input[WEIGHT]] * pixels[node.output[0]] for node in found}


def narrow_share(graph: bytes, mixed: bytes) -> float:
    """Share, 0..1, of the multiplications of `graph`'s convolutions that are in 8 bits in `mixed`, made from it."""
    work = multiply_adds(graph)
    inner = onnx.load_from_string(mixed).graph
    dequantized = {name for node in inner.node if node.op_type == "DequantizeLinear" for name in node.output}
    narrow = (work[node.name] for node in inner.node if node.op_type == "Conv" and node.input[WEIGHT] in dequantized)
    return sum(narrow) / sum(work.values())


def _all_narrow(graph: bytes, calibration: Sequence[Arrays]) -> bytes:
    nncf = _nncf()
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    with _silence(nncf):
        model: ModelProto = nncf.quantize(
            onnx.load_from_string(graph),
            nncf.Dataset([dict(sample) for sample in calibration]),
            subset_size=len(calibration),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            ignored_scope=nncf.IgnoredScope(types=list(IGNORED), validate=False),
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )
    return bytes(model.SerializeToString())


def _tidy(model: ModelProto, constants: Sequence[TensorProto]) -> None:
    """Set the model's constants, and remove pairs and constants that no node reads."""
    used = {value.name for value in model.graph.output}
    nodes: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if used.intersection(node.output):
            nodes.insert(0, node)
            used.update(node.input)
    kept = [tensor for tensor in constants if tensor.name in used]
    for field, items in ((model.graph.node, nodes), (model.graph.initializer, kept), (model.graph.value_info, [])):
        del field[:]
        field.extend(items)
    del model.metadata_props[:]


def _after_sigmoid(graph: GraphProto) -> set[str]:
    """Names of the sigmoids and of all nodes after them."""
    late: set[str] = set()
    found = set()
    for node in graph.node:
        if node.op_type == "Sigmoid" or late.intersection(node.input):
            late.update(node.output)
            found.add(node.name)
    return found


def _block_of(weight: str) -> str:
    parts = weight.split(".")
    return ".".join(parts[: DEPTH.get(parts[0], 1)])


def _pixels(value: onnx.ValueInfoProto) -> int:
    return prod(axis.dim_value for axis in list(value.type.tensor_type.shape.dim)[2:])


def require_nncf() -> None:
    """Raises BackendUnavailable if NNCF or OpenVINO, which are in one extra, is missing."""
    require("quantize", user="a graph in 8 bits")


def _nncf() -> ModuleType:
    require_nncf()
    import nncf

    module: ModuleType = nncf
    return module


@contextmanager
def _silence(nncf: ModuleType) -> Iterator[None]:
    """Suppresses NNCF's progress bars and warnings about its own internals; its errors still raise."""
    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""Operations and bytes of the networks, counted from the convolutions of their graphs."""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import onnx

from glam_deploy.bundle import graph_file, open_bundle
from glam_deploy.networks import Stage

NETWORKS: tuple[Stage, ...] = ("global", "local")
FLOAT_BYTES = 4


def of_bundle(folder: Path) -> dict[str, dict[str, float]]:
    """{"global" (one image), "local" (one patch), if there is one: {"flop", "bytes"}} of a bundle's fp32 graphs."""
    bundle = open_bundle(folder)
    graphs = {stage: bundle.read(graph_file(stage)) for stage in NETWORKS if stage in bundle.network.stages}
    return {s: {"flop": convolution_flop(g), "bytes": convolution_bytes(g)} for s, g in graphs.items()}


def convolution_flop(graph: bytes) -> float:
    """Operations of all convolutions of an ONNX graph for a batch of one; an addition and a multiplication are two."""
    return float(sum(2 * prod(weights) * prod(outputs[2:]) for _, weights, outputs in _convolutions(graph)))


def convolution_bytes(graph: bytes) -> float:
    """Bytes of inputs, weights and outputs of all convolutions in FP32, for a batch of one."""
    values = sum(prod(inputs[1:]) + prod(weights) + prod(out[1:]) for inputs, weights, out in _convolutions(graph))
    return float(FLOAT_BYTES * values)


Shape = tuple[int, ...]


def _convolutions(graph: bytes) -> Iterator[tuple[Shape, Shape, Shape]]:
    """Shapes of input, weights and output of each; the first axis of input and output is the batch."""
    inner = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(graph)).graph
    shapes: Mapping[str, Shape] = {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*inner.input, *inner.value_info, *inner.output)
    } | {tensor.name: tuple(tensor.dims) for tensor in inner.initializer}
    for node in inner.node:
        if node.op_type == "Conv":
            yield shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]

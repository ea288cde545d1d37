"""Time that 8 bits save in each block, from its multiplications and the measured speed of each form."""

from collections.abc import Collection, Mapping
from math import prod

import onnx
from onnx import GraphProto, NodeProto

from glam_export.precision.quantize import WEIGHT, blocks, multiply_adds
from glam_export.precision.winograd import winograd


def rewritten(graph: bytes) -> frozenset[str]:
    """Names of the convolutions of an FP32 graph that Winograd's form makes cheaper; never those with 1 x 1 kernels."""
    inner = onnx.load_from_string(graph).graph
    areas = {tensor.name: prod(tensor.dims[2:]) for tensor in inner.initializer}
    large = {node.name for node in _convolutions(inner) if areas[node.input[WEIGHT]] > 1}
    left = onnx.load_from_string(winograd(graph)).graph
    return frozenset(large - {node.name for node in _convolutions(left)})


def savings(graph: bytes, *, form: float, narrow: float, tiled: Collection[str] | None = None) -> dict[str, float]:
    """Block -> time that 8 bits save there, as a share of the stage's FP32 time; negative if they cost time.

    `graph`: the stage in FP32. `form`: time of the stage in the form that its wide blocks have, and `narrow`: with all
    of it in 8 bits; both as shares of the FP32 time. `tiled`: names of the convolutions that the wide form makes
    faster; None for all of them. Blocks without a convolution are left out.
    """
    work = multiply_adds(graph)
    faster = work.keys() if tiled is None else tiled
    rate = _rate(work, form, faster)
    saved = {name: times * ((rate if name in faster else 1.0) - narrow) for name, times in work.items()}
    found = {block: [saved[node] for node in nodes if node in saved] for block, nodes in blocks(graph).items()}
    return {block: sum(parts) / sum(work.values()) for block, parts in found.items() if parts}


def _rate(work: Mapping[str, int], form: float, faster: Collection[str]) -> float:
    """Time of a multiplication in the faster convolutions, FP32 = 1: they alone account for the saving of the stage."""
    share = sum(work[name] for name in faster) / sum(work.values())
    return max(0.0, 1 - (1 - form) / share)


def _convolutions(graph: GraphProto) -> list[NodeProto]:
    return [node for node in graph.node if node.op_type == "Conv"]

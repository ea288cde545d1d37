"""How much arithmetic 8 bits save in each block: multiplications, weighed by how fast each form of them was."""

from collections.abc import Collection, Mapping
from math import prod

import onnx
from onnx import GraphProto, NodeProto

from glam_export.quantize import WEIGHT, blocks, multiply_adds
from glam_export.winograd import winograd


def rewritten(graph: bytes) -> frozenset[str]:
    """Names of the convolutions of an FP32 graph that multiply less in Winograd's form; 1 x 1 kernels never do."""
    inner = onnx.load_from_string(graph).graph
    areas = {tensor.name: prod(tensor.dims[2:]) for tensor in inner.initializer}
    large = {node.name for node in _convolutions(inner) if areas[node.input[WEIGHT]] > 1}
    left = onnx.load_from_string(winograd(graph)).graph
    return frozenset(large - {node.name for node in _convolutions(left)})


def savings(graph: bytes, *, form: float, narrow: float, tiled: Collection[str] | None = None) -> dict[str, float]:
    """Block -> time that 8 bits save there, as a share of all of FP32's; below 0 where they cost some.

    `graph`: the stage in FP32. `form`: time of the stage as it is where it is wide, all of it, and `narrow`: with all
    of it in 8 bits; each as a share of FP32's time. `tiled`: the convolutions that the wide form makes faster; None
    where it is all of them. Blocks without a convolution are left out.
    """
    work = multiply_adds(graph)
    faster = work.keys() if tiled is None else tiled
    rate = _rate(work, form, faster)
    saved = {name: times * ((rate if name in faster else 1.0) - narrow) for name, times in work.items()}
    found = {block: [saved[node] for node in nodes if node in saved] for block, nodes in blocks(graph).items()}
    return {block: sum(parts) / sum(work.values()) for block, parts in found.items() if parts}


def _rate(work: Mapping[str, int], form: float, faster: Collection[str]) -> float:
    """Time of a multiplication in the faster convolutions, which alone save what the stage does."""
    share = sum(work[name] for name in faster) / sum(work.values())
    return max(0.0, 1 - (1 - form) / share)


def _convolutions(graph: GraphProto) -> list[NodeProto]:
    return [node for node in graph.node if node.op_type == "Conv"]

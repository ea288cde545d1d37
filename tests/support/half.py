"""Half graphs a second time, by operators: FP32 arithmetic, and every number that should be half rounded to it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glam_deploy.networks import GLAM
from glam_export.graphs import glam as graphs
from glam_export.graphs import layers

HALF = [("fp16", torch.float16), ("bf16", torch.bfloat16)]
"""Precisions and their types in torch."""


def rounded(x: Tensor, half: torch.dtype) -> Tensor:
    return x.to(half).float()


def conv(layer: nn.Conv2d, x: Tensor, half: torch.dtype) -> Tensor:
    """FP32 arithmetic on rounded numbers, and a rounded result."""
    bias = None if layer.bias is None else rounded(layer.bias, half)
    y = F.conv2d(x, rounded(layer.weight, half), bias, layer.stride, layer.padding)
    return rounded(y, half)


def scaled(norm: layers.ScaleShift, x: Tensor, half: torch.dtype) -> Tensor:
    return F.relu(rounded(x * norm.scale + norm.shift, half))


def rounded_global(graph: graphs.GlobalGraph, image: Tensor, half: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    h = F.max_pool2d(conv(graph.stem, rounded(image, half), half), 3, 2)
    stages = []
    for stage in graph.stages:
        for block in stage:
            active = scaled(block.norm, h, half)
            residual = h if block.shortcut is None else conv(block.shortcut[0], active, half)
            h = rounded(residual + conv(block.conv2, F.relu(conv(block.conv1, active, half)), half), half)
        stages.append(h)
    h2 = scaled(graph.last_norm, h, half)
    heads = (graph.heads.gn_conv_1, graph.heads.gn_conv_2, graph.heads.gn_conv_last)
    s = [conv(head, x, half).sigmoid() for head, x in zip(heads, (stages[2], stages[3], h2), strict=True)]
    s = [F.interpolate(x, size=GLAM.map_shape) for x in s]
    y_scale = [torch.stack([x.flatten(2).topk(662).values.mean(-1)]) for x in s]
    return 0.2 * s[0] + 0.6 * s[1] + 0.2 * s[2], torch.cat(y_scale).transpose(0, 1), h2.amax((2, 3))


def rounded_local(graph: graphs.LocalGraph, patches: Tensor, half: torch.dtype) -> tuple[Tensor, Tensor]:
    h = F.max_pool2d(F.relu(conv(graph.stem, rounded(patches, half), half)), 3, 2, 1)
    for block in graph.blocks:
        residual = h if block.shortcut is None else conv(block.shortcut, h, half)
        h = F.relu(rounded(residual + conv(block.conv2, F.relu(conv(block.conv1, h, half)), half), half))
    return conv(graph.head, h, half).sigmoid(), h.amax((2, 3))


def assert_rounded_alike(
    found: Tensor, expected: Tensor, plain: Tensor, half: torch.dtype, *, share: float = 1 / 8
) -> None:
    """`found` is rounded at the places where its twin `expected` is; `plain` is FP32.

    It differs from its twin by at most a `share` of what rounding does, and rounding does as much to both. With one
    rounding more, such as of the scales and shifts, two small graphs differ by 0.3 of that, two large ones by 0.8.
    """
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    moved = float((expected - plain).abs().mean())
    assert moved > torch.finfo(half).eps / 30 * float(plain.abs().mean())
    assert float((found - expected).abs().mean()) < share * moved
    assert float((found - plain).abs().mean()) == pytest.approx(moved, rel=0.2)

"""Parts of graphs that networks share, rewritten from the reference only where an ONNX graph must differ.

A graph computes in the type of its convolutions and answers in that of its input. In fp16 and bf16 the convolutions,
their weights (rounded once, after folding) and the activations between them are half; scales and shifts, spatial maxima
and everything after the logits are FP32.
"""

import copy
from collections.abc import Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from glam_deploy.precision import Precision
from glam_export.reference.basic_block import BasicBlock
from glam_export.reference.resnet import Bottleneck, ResNet
from glam_export.reference.resnet22 import DownsamplingBranch, PreActivationBlock

BISECTIONS = 24
"""Halvings of 0..1 that bring the threshold of `top_mean` within one unit in the last place of float32 at 1."""

TYPES: Mapping[Precision, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
)
"""Type of the convolutions."""


def top_mean(values: Tensor, count: Tensor | float) -> Tensor:
    """Mean of the `count` largest of the last axis, without sorting: [..., values] in 0..1 -> [...].

    It is the minimum over t of t + sum(max(v - t, 0)) / count, reached where `count` values lie above t; `count` need
    not be whole. Zeros appended to `values` change nothing.
    """
    low = torch.zeros_like(values[..., 0])
    high = torch.ones_like(low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        too_many = (values > middle.unsqueeze(-1)).float().sum(-1) > count
        low, high = torch.where(too_many, middle, low), torch.where(too_many, high, middle)
    return high + F.relu(values - high.unsqueeze(-1)).sum(-1) / count


def upsample(maps: Tensor, factor: int) -> Tensor:
    """Nearest neighbour, [N,C,rows,columns], by a whole factor."""
    return F.interpolate(maps, scale_factor=float(factor), mode="nearest")


class ScaleShift(nn.Module):
    """A batch norm without a convolution to fold it into: one multiplication and one addition per channel.

    It computes in FP32 whatever the type of its input: that halves the error of an fp16 graph, and costs a GPU no time,
    because the operation is limited by memory.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("batch norm without running statistics")
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        self.register_buffer("scale", scale.detach().reshape(1, -1, 1, 1))
        self.register_buffer("shift", shift.detach().reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(self.scale.dtype) * self.scale + self.shift).to(x.dtype)


class FoldedPreActivationBlock(nn.Module):
    """A pre-activation block with the batch norm between its convolutions folded into the first one."""

    def __init__(self, block: PreActivationBlock) -> None:
        super().__init__()
        self.norm = ScaleShift(block.bn1)
        self.conv1 = fuse_conv_bn_eval(block.conv1, block.bn2)
        self.conv2 = block.conv2
        self.shortcut = block.downsample

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm(x))
        residual: Tensor = x if self.shortcut is None else self.shortcut(active)
        branch: Tensor = self.conv2(F.relu(self.conv1(active)))
        return residual + branch


class FoldedBasicBlock(nn.Module):
    """A post-activation block with its batch norms folded into its convolutions."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1 = fuse_conv_bn_eval(block.conv1, block.bn1)
        self.conv2 = fuse_conv_bn_eval(block.conv2, block.bn2)
        self.shortcut = None if block.downsample is None else fuse_conv_bn_eval(*block.downsample)

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.shortcut is None else self.shortcut(x)
        return F.relu(residual + self.conv2(F.relu(self.conv1(x))))


class FoldedBottleneck(nn.Module):
    """A bottleneck with its batch norms folded into its convolutions."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = fuse_conv_bn_eval(block.conv1, block.bn1)
        self.conv2 = fuse_conv_bn_eval(block.conv2, block.bn2)
        self.conv3 = fuse_conv_bn_eval(block.conv3, block.bn3)
        self.shortcut = None if block.downsample is None else fuse_conv_bn_eval(*block.downsample)

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.shortcut is None else self.shortcut(x)
        return F.relu(residual + self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))))


class ResNetGraph(nn.Module):
    """The ResNet of CAM and of GMIC's local module; subclasses add what follows its features."""

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.stem = grey_stem(resnet.conv1, resnet.bn1)
        folded = {BasicBlock: FoldedBasicBlock, Bottleneck: FoldedBottleneck}
        blocks = (block for block in resnet.modules() if type(block) in folded)
        self.blocks = nn.Sequential(*(folded[type(block)](block) for block in blocks))

    def features(self, images: Tensor) -> Tensor:
        """Features of grey images [N,1,rows,columns], in the convolutions' type."""
        h: Tensor = self.blocks(F.max_pool2d(F.relu(self.stem(images.to(self.stem.weight.dtype))), 3, 2, 1))
        return h


class TrunkGraph(nn.Module):
    """The ResNet-22 of GLAM and GMIC; subclasses add the heads."""

    def __init__(self, branch: DownsamplingBranch) -> None:
        super().__init__()
        self.stem = branch.first_conv
        self.stages = nn.ModuleList(
            nn.Sequential(*(FoldedPreActivationBlock(b) for b in stage.modules() if isinstance(b, PreActivationBlock)))
            for stage in branch.layer_list
        )
        self.last_norm = ScaleShift(branch.final_bn)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Feature maps of stages 3 and 4, and of stage 5 after its batch norm and ReLU, in the convolutions' type."""
        h = F.max_pool2d(self.stem(image.to(self.stem.weight.dtype)), 3, 2)
        found = []
        for stage in self.stages:
            h = stage(h)
            found.append(h)
        return found[2], found[3], F.relu(self.last_norm(found[4]))


def grey_stem(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A stem for one channel from one for three equal channels, with its batch norm folded in."""
    grey = nn.Conv2d(1, conv.out_channels, 7, 2, 3, bias=False)
    grey.weight = nn.Parameter(conv.weight.sum(1, keepdim=True), requires_grad=False)
    return fuse_conv_bn_eval(grey.eval(), norm)


def in_precision(module: nn.Module, precision: Precision) -> nn.Module:
    """A graph itself for fp32, else a copy whose convolutions are of that type."""
    if precision == "fp32":
        return module
    typed = copy.deepcopy(module)
    for layer in typed.modules():
        if isinstance(layer, nn.Conv2d):
            layer.to(TYPES[precision])
    return typed

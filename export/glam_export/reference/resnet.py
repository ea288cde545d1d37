"""ResNet with post-activation blocks (He et al. 2016): local module of GMIC, and feature extractor of CAM."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from glam_export.reference.basic_block import BasicBlock, projection

FILTERS = (64, 128, 256, 512)
"""Filters of the four stages; a bottleneck has four times as many outputs."""


class Bottleneck(nn.Module):
    """Block of ResNet-50 and deeper: 1x1, 3x3 and 1x1 convolution, each with BN, added to the input; ReLU between all.

    The stride is in the 3x3 convolution, as in the networks that torchvision publishes; the paper has it in the first.
    """

    EXPANSION = 4

    downsample: nn.Sequential | None

    def __init__(self, inputs: int, filters: int, stride: int = 1) -> None:
        super().__init__()
        outputs = self.EXPANSION * filters
        self.conv1 = nn.Conv2d(inputs, filters, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.conv3 = nn.Conv2d(filters, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = x if self.downsample is None else self.downsample(x)
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(residual + self.bn3(self.conv3(inner)))


class ResNet(nn.Module):
    """Grey images [N,1,rows,columns] -> features [N,C,rows/32,columns/32], C = 512, of bottlenecks 2048; no classifier.

    `blocks`: number of blocks of each stage. `channels`: inputs of the first convolution; the image fills all of them.
    """

    def __init__(
        self, blocks: Sequence[int], block: type[BasicBlock | Bottleneck] = BasicBlock, *, channels: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, FILTERS[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(FILTERS[0])
        inputs = FILTERS[0]
        for i, (filters, count) in enumerate(zip(FILTERS, blocks, strict=True), start=1):
            first, inputs = block(inputs, filters, stride=1 if i == 1 else 2), filters * block.EXPANSION
            rest = (block(inputs, filters) for _ in range(count - 1))
            self.add_module(f"layer{i}", nn.Sequential(first, *rest))

    def forward(self, images: Tensor) -> Tensor:
        x = images.expand(-1, self.conv1.in_channels, -1, -1)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for i in range(1, len(FILTERS) + 1):
            x = self.get_submodule(f"layer{i}")(x)
        return x

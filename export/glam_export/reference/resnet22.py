"""ResNet-22 with pre-activation blocks: trunk of the global module (Liu et al. 2021, section 2; Shen et al. 2021)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class PreActivationBlock(nn.Module):
    """BN-ReLU-conv3x3-BN-ReLU-conv3x3; the first block of a stage has a 1x1 shortcut of the activated input."""

    downsample: nn.Sequential | None

    def __init__(self, inputs: int, outputs: int, stride: int, *, shortcut: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False)) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        residual: Tensor = x if self.downsample is None else self.downsample(active)
        branch: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return residual + branch


class DownsamplingBranch(nn.Module):
    """Image -> the feature maps of stages 3, 4 and 5 (h0, h1, and h2 after the final BN-ReLU)."""

    def __init__(self, filters: Sequence[int]) -> None:
        super().__init__()
        self.first_conv = nn.Conv2d(1, filters[0], 7, 2, 3, bias=False)
        before = (filters[0], *filters[:-1])
        self.layer_list = nn.ModuleList(
            nn.Sequential(
                PreActivationBlock(i, o, 1 if stage == 0 else 2, shortcut=True),
                PreActivationBlock(o, o, 1, shortcut=False),
            )
            for stage, (i, o) in enumerate(zip(before, filters, strict=True))
        )
        self.final_bn = nn.BatchNorm2d(filters[-1])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.max_pool2d(self.first_conv(image), 3, 2)
        stages = []
        for stage in self.layer_list:
            h = stage(h)
            stages.append(h)
        return stages[2], stages[3], F.relu(self.final_bn(stages[4]))

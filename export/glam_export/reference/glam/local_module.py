"""Local module of GLAM: a ResNet-34 that keeps 128 x 128 cells for a 512 x 512 patch (Liu et al. 2021, section 2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glam_deploy.networks import GLAM
from glam_export.reference.basic_block import BasicBlock

BLOCKS = (3, 4, 6, 3)


class HighResolutionResNet34(nn.Module):
    """Stem with stride 4, then four stages that keep the resolution."""

    def __init__(self, filters: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, filters[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(filters[0])
        before = (filters[0], *filters[:-1])
        for i, (inputs, outputs, blocks) in enumerate(zip(before, filters, BLOCKS, strict=True), start=1):
            rest = (BasicBlock(outputs, outputs) for _ in range(blocks - 1))
            self.add_module(f"layer{i}", nn.Sequential(BasicBlock(inputs, outputs), *rest))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for i in range(1, len(BLOCKS) + 1):
            x = self.get_submodule(f"layer{i}")(x)
        return x


class DetectionNetwork(nn.Module):
    """Patches -> (saliency_patches [M,2,128,128], z_k [M,512]); a grey patch fills all three input channels."""

    def __init__(self, filters: Sequence[int]) -> None:
        super().__init__()
        self.dn_resnet = HighResolutionResNet34(filters)
        self.gn_conv_last = nn.Conv2d(filters[-1], len(GLAM.classes), 1, bias=False)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        h = self.dn_resnet(patches.expand(-1, 3, -1, -1))
        return torch.sigmoid(self.gn_conv_last(h)), h.amax((2, 3))

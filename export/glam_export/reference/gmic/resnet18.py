"""ResNet-18 without its classifier: the local module of GMIC (Shen et al. 2021, section 3.2; He et al. 2016)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from glam_export.reference.basic_block import BasicBlock


class ResNet18(nn.Module):
    """Patches [M,1,256,256] -> z_k [M,512]; a grey patch fills all three input channels."""

    def __init__(self, filters: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, filters[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(filters[0])
        before = (filters[0], *filters[:-1])
        for i, (inputs, outputs) in enumerate(zip(before, filters, strict=True), start=1):
            first = BasicBlock(inputs, outputs, stride=1 if i == 1 else 2)
            self.add_module(f"layer{i}", nn.Sequential(first, BasicBlock(outputs, outputs, stride=1)))

    def forward(self, patches: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(patches.expand(-1, 3, -1, -1)))), 3, 2, 1)
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
        return x.mean((2, 3))

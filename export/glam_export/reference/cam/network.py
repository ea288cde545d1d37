"""The whole network: a ResNet (He et al. 2016) and its classifier, applied to the mean and to each cell (Zhou et al.
2016, section 2)."""

from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glam_deploy.networks import NetworkSpec, Stage
from glam_export.reference.base import Forward, ReferenceNetwork
from glam_export.reference.basic_block import BasicBlock
from glam_export.reference.cam.keys import Layout, layout_of
from glam_export.reference.resnet import FILTERS, Bottleneck, ResNet


class CamNetwork(ReferenceNetwork, ResNet):
    """CAM with the state-dict keys of torchvision's ResNets; `layout` has its depth and input channels."""

    def __init__(self, spec: NetworkSpec, layout: Layout) -> None:
        block = Bottleneck if layout.has_bottlenecks else BasicBlock
        super().__init__(layout.blocks, block, channels=layout.channels)
        self.spec = spec
        self.fc = nn.Linear(FILTERS[-1] * block.EXPANSION, len(spec.classes))

    @classmethod
    def like(cls, spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> Self:
        return cls(spec, layout_of(tensors))

    def stages(self) -> Mapping[Stage, Forward]:
        return {"global": self.find}

    def find(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image [N,1,2944,1920] -> saliency [N,2,92,60], y_global [N,2]; see `networks.cam`."""
        features = self(image)
        logits = F.conv2d(features, self.fc.weight[:, :, None, None], self.fc.bias)
        return torch.sigmoid(logits), torch.sigmoid(self.fc(features.mean((2, 3))))

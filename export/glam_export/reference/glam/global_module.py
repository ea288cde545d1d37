"""Global module of GLAM: a ResNet-22 over the whole view, and saliency at three scales (Liu et al. 2021, section 2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glam_deploy.networks import GLAM, glam
from glam_export.reference.pooling import top_mean
from glam_export.reference.resnet22 import DownsamplingBranch


class ScaleHeads(nn.Module):
    """Bias-free 1x1 convolutions from each scale's features to two-class logits."""

    def __init__(self, filters: Sequence[int]) -> None:
        super().__init__()
        classes = len(GLAM.classes)
        self.gn_conv_1 = nn.Conv2d(filters[2], classes, 1, bias=False)
        self.gn_conv_2 = nn.Conv2d(filters[3], classes, 1, bias=False)
        self.gn_conv_last = nn.Conv2d(filters[4], classes, 1, bias=False)
        # in every published checkpoint; the published inference does not use it
        self.combine = nn.Conv2d(3 * classes, classes, 1, bias=False)

    def forward(self, h0: Tensor, h1: Tensor, h2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (
            torch.sigmoid(self.gn_conv_1(h0)),
            torch.sigmoid(self.gn_conv_2(h1)),
            torch.sigmoid(self.gn_conv_last(h2)),
        )


class GlobalNetwork(nn.Module):
    """Image -> (saliency_global [N,2,184,120], y_scale [N,3,2], z_g [N,256])."""

    def __init__(self, filters: Sequence[int]) -> None:
        super().__init__()
        self.downsampling_branch = DownsamplingBranch(filters)
        self.postprocess_module = ScaleHeads(filters)

    def scale_saliency(self, image: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Each scale's saliency at its own size (184x120, 92x60, 46x30), and h2 [N,256,46,30]."""
        h0, h1, h2 = self.downsampling_branch(image)
        return self.postprocess_module(h0, h1, h2), h2

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scales, h2 = self.scale_saliency(image)
        maps = [F.interpolate(s, size=GLAM.map_shape, mode="nearest") for s in scales]
        saliency = torch.stack([w * m for w, m in zip(glam.SCALE_WEIGHTS, maps, strict=True)]).sum(0)
        y_scale = torch.stack([top_mean(m.flatten(2), glam.SCALE_POOL_FRACTION) for m in maps], dim=1)
        return saliency, y_scale, h2.amax((2, 3))

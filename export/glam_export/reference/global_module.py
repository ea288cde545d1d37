"""Global module: a pre-activation ResNet-22 that sees the whole view at low cost (Liu et al. 2021, section 2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glam_deploy.networks import GLAM, glam
from glam_export.reference.pooling import top_mean


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


class ScaleHeads(nn.Module):
    """Bias-free 1x1 convolutions from each scale's features to two-class logits."""

    def __init__(self, filters: Sequence[int]) -> None:
        super().__init__()
        classes = len(GLAM.classes)
        self.gn_conv_1 = nn.Conv2d(filters[2], classes, 1, bias=False)
        self.gn_conv_2 = nn.Conv2d(filters[3], classes, 1, bias=False)
        self.gn_conv_last = nn.Conv2d(filters[4], classes, 1, bias=False)
        # in every published checkpoint, used by none of the published inference
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

"""The post-activation block of ResNet-18 and ResNet-34 (He et al. 2016), in local modules of GLAM and GMIC, and CAM."""

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN, added to the input (through 1x1 convolution and BN where its shape changes), ReLU."""

    EXPANSION = 1
    """Outputs of a block for each filter of its stage; other kinds of blocks have more."""

    downsample: nn.Sequential | None

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = x if self.downsample is None else self.downsample(x)
        return F.relu(residual + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """1x1 convolution and batch norm of a shortcut that changes the number of channels; None for an identity."""
    if inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

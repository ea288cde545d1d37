"""The whole network: global module, local module, attention over patches, fusion (Shen et al. 2021, section 3)."""

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from glam_deploy.networks import NetworkSpec, Stage, gmic
from glam_deploy.networks.base import ATTENTION_WIDTH
from glam_export.reference import pooling
from glam_export.reference.base import Forward, ReferenceNetwork
from glam_export.reference.resnet import ResNet
from glam_export.reference.resnet22 import DownsamplingBranch

GLOBAL_FILTERS = (16, 32, 64, 128, 256)
LOCAL_BLOCKS = (2, 2, 2, 2)
"""The local module is a ResNet-18 without its classifier."""


class SaliencyHead(nn.Module):
    """Features [N,256,46,30] -> saliency [N,2,46,30], 0..1: a 1x1 convolution without bias."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.gn_conv_last = nn.Conv2d(inputs, len(gmic.CLASSES), 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.gn_conv_last(features))


class Heads(Protocol):
    """The linear layers of attention and fusion, which the published keys have at the root."""

    mil_attn_V: nn.Linear
    mil_attn_U: nn.Linear
    mil_attn_w: nn.Linear
    classifier_linear: nn.Linear
    fusion_dnn: nn.Linear


class GmicNetwork(ReferenceNetwork):
    """GMIC with the published state-dict keys: 258 entries, 14,110,322 parameters."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.ds_net = DownsamplingBranch(GLOBAL_FILTERS)
        self.left_postprocess_net = SaliencyHead(GLOBAL_FILTERS[-1])
        self.dn_resnet = ResNet(LOCAL_BLOCKS)
        self.mil_attn_V = nn.Linear(gmic.Z_PATCH, ATTENTION_WIDTH, bias=False)
        self.mil_attn_U = nn.Linear(gmic.Z_PATCH, ATTENTION_WIDTH, bias=False)
        self.mil_attn_w = nn.Linear(ATTENTION_WIDTH, 1, bias=False)
        self.classifier_linear = nn.Linear(gmic.Z_PATCH, len(gmic.CLASSES), bias=False)
        self.fusion_dnn = nn.Linear(gmic.Z_GLOBAL + gmic.Z_PATCH, len(gmic.CLASSES))

    def stages(self) -> Mapping[Stage, Forward]:
        return {"global": self.find, "local": self.look, "fusion": partial(fuse, self)}

    def find(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image [N,1,2944,1920] -> saliency [N,2,46,30], y_global [N,2], z_g [N,256]."""
        _, _, features = self.ds_net(image)
        saliency = self.left_postprocess_net(features)
        y_global = pooling.top_mean(saliency.flatten(2), gmic.TOP_FRACTION)
        return saliency, y_global, features.amax((2, 3))

    def look(self, patches: Tensor) -> tuple[Tensor]:
        """Patches [M,1,256,256] -> z_k [M,512]."""
        return (self.dn_resnet(patches).mean((2, 3)),)


def fuse(heads: Heads, patch_locations: Tensor, z_g: Tensor, z_k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Attention over the patches and fusion with the global module: -> y_local [N,2], y_fusion [N,2], attention [N,6].

    Slots with location (-1, -1) are unused.
    """
    gate = torch.tanh(heads.mil_attn_V(z_k)) * torch.sigmoid(heads.mil_attn_U(z_k))
    scores = heads.mil_attn_w(gate).squeeze(-1).masked_fill(patch_locations[..., 0] < 0, float("-inf"))
    attention = torch.softmax(scores, dim=1)
    z = (attention.unsqueeze(-1) * z_k).sum(1)
    y_local = torch.sigmoid(heads.classifier_linear(z))
    return y_local, torch.sigmoid(heads.fusion_dnn(torch.cat([z_g, z], dim=1))), attention

"""The whole network: global and local modules, aggregation over patches, fusion (Liu et al. 2021, section 2)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glam_deploy.networks import GLAM, NetworkSpec, glam
from glam_export.reference.global_module import GlobalNetwork
from glam_export.reference.local_module import DetectionNetwork
from glam_export.reference.pooling import top_mean

GLOBAL_FILTERS = (16, 32, 64, 128, 256)
LOCAL_FILTERS = (64, 128, 256, 512)
ATTENTION_WIDTH = 128


class Aggregated(NamedTuple):
    """What the K patches of an image say together."""

    y_local: Tensor
    """[N, 2]."""
    z_l: Tensor | None
    """[N, 512]."""
    attention: Tensor | None
    """[N, K]."""


class GlamNetwork(nn.Module):
    """GLAM with the published state-dict keys.

    `spec`: GLAM with attention and fusion layers (joint training in the paper), or with the concatenation
    aggregation, which gives y_local without learned weights and has no y_fusion. Between global and local module
    stands the patch selection, which has no learned part and lives in `glam_deploy.patches`; the modules are therefore
    called one by one.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.global_network = GlobalNetwork(GLOBAL_FILTERS)
        self.detection_network = DetectionNetwork(LOCAL_FILTERS)
        if spec is GLAM:
            self.mil_attn_V = nn.Linear(glam.Z_PATCH, ATTENTION_WIDTH, bias=False)
            self.mil_attn_U = nn.Linear(glam.Z_PATCH, ATTENTION_WIDTH, bias=False)
            self.mil_attn_w = nn.Linear(ATTENTION_WIDTH, 1, bias=False)
            self.fusion_dnn = nn.Linear(glam.Z_GLOBAL + glam.Z_PATCH, len(GLAM.classes))

    def aggregate(self, saliency_patches: Tensor, z_k: Tensor) -> Aggregated:
        """K patch maps [N,K,2,128,128] and vectors [N,K,512] -> one local prediction."""
        if self.spec is not GLAM:
            pooled = top_mean(saliency_patches.transpose(1, 2).flatten(2), glam.PATCH_POOL_FRACTION)
            return Aggregated(pooled, None, None)
        gate = torch.tanh(self.mil_attn_V(z_k)) * torch.sigmoid(self.mil_attn_U(z_k))
        attention = torch.softmax(self.mil_attn_w(gate).squeeze(-1), dim=1)
        y_k = top_mean(saliency_patches.flatten(3), glam.PATCH_POOL_FRACTION)
        weight = attention.unsqueeze(-1)
        return Aggregated((weight * y_k).sum(1), (weight * z_k).sum(1), attention)

    def predict_fusion(self, z_g: Tensor, z_l: Tensor) -> Tensor:
        """Image prediction from both representations, [N,256] and [N,512] -> [N,2] (paper, section 2, fusion)."""
        return torch.sigmoid(self.fusion_dnn(torch.cat([z_g, z_l], dim=1)))

    @staticmethod
    def fuse_saliency(saliency_global: Tensor, saliency_patches: Tensor, patch_locations: Tensor) -> Tensor:
        """Fused map [N,2,2944,1920]: patches pasted in order, later over earlier, averaged with the global map."""
        wide = F.interpolate(saliency_global, size=GLAM.input_shape, mode="nearest")
        canvas = torch.zeros_like(wide)
        side = GLAM.patches.side
        for n, places in enumerate(patch_locations.tolist()):
            for k, (row, column) in enumerate(places):
                patch = F.interpolate(saliency_patches[n, k, None], size=(side, side), mode="nearest")[0]
                canvas[n, :, row : row + side, column : column + side] = patch
        return (canvas + wide) / 2

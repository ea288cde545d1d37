"""GLAM as a whole: global and local modules, aggregation over patches, fusion (Liu et al. 2021, section 2)."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glam_deploy.networks import GLAM, NetworkSpec, Stage, glam
from glam_deploy.networks.base import ATTENTION_WIDTH
from glam_export.reference.base import Forward, ReferenceNetwork
from glam_export.reference.glam.global_module import GlobalNetwork
from glam_export.reference.glam.local_module import DetectionNetwork
from glam_export.reference.pooling import top_mean

GLOBAL_FILTERS = (16, 32, 64, 128, 256)
LOCAL_FILTERS = (64, 128, 256, 512)


class Aggregated(NamedTuple):
    """Prediction from the K patches of an image."""

    y_local: Tensor
    """[N, 2]."""
    z_l: Tensor | None
    """[N, 512]."""
    attention: Tensor | None
    """[N, K]."""


class GlamNetwork(ReferenceNetwork):
    """GLAM with the published state-dict keys.

    `spec`: GLAM with attention and fusion layers (joint training in the paper), or GLAM_CONCATENATION, whose
    concatenation aggregation gives y_local without learned weights, and which has no y_fusion.
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

    def stages(self) -> Mapping[Stage, Forward]:
        return {"global": self.global_network, "local": self.detection_network, "fusion": self.fuse}

    def use_exact_layout(self) -> None:
        """Channels last in the local module: in that layout oneDNN's sums are closer to float64, at the same speed."""
        for weight in self.detection_network.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def fuse(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        """The fusion stage, image by image, because each image may use another number of its patch slots."""
        rows = [self._fuse_one({k: v[n : n + 1] for k, v in inputs.items()}) for n in range(len(inputs["y_scale"]))]
        return tuple(torch.cat(values) for values in zip(*rows, strict=True))

    def _fuse_one(self, one: dict[str, Tensor]) -> list[Tensor]:
        slots = one["patch_locations"].shape[1]
        used = int((one["patch_locations"][0, :, 0] >= 0).sum())
        maps, places = one["saliency_patches"][:, :used], one["patch_locations"][:, :used]
        z_k = one["z_k"][:, :used] if self.spec is GLAM else torch.empty(0)
        local = self.aggregate(maps, z_k)
        outputs = [one["y_scale"].mean(1), local.y_local, self.fuse_saliency(one["saliency_global"], maps, places)]
        if local.attention is not None and local.z_l is not None:
            outputs.append(self.predict_fusion(one["z_g"], local.z_l))
            outputs.append(F.pad(local.attention, (0, slots - used)))
        return outputs

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

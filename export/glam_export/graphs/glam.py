"""The three graphs of GLAM as torch modules made for export.

What differs from `reference.glam`: batch norms are folded into convolutions (those before a convolution's ReLU become a
scale and a shift), the local stem's three input channels are folded to one, top-fraction pooling needs no sort, maps
are composed on the coarsest grid that holds them exactly, and the fusion graph has six patch slots of which any number
may be used. Each export compares the graphs with the reference (`steps.compare`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glam_deploy.networks import GLAM, Stage, glam
from glam_export.graphs.layers import FoldedBasicBlock, TrunkGraph, grey_stem, top_mean, upsample
from glam_export.reference import pooling
from glam_export.reference.basic_block import BasicBlock
from glam_export.reference.glam import GlamNetwork
from glam_export.reference.glam.global_module import GlobalNetwork
from glam_export.reference.glam.local_module import DetectionNetwork


class GlobalGraph(TrunkGraph):
    """image -> saliency_global, y_scale, z_g; see `networks.glam`."""

    def __init__(self, network: GlobalNetwork) -> None:
        super().__init__(network.downsampling_branch)
        self.heads = network.postprocess_module

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h0, h1, h2 = self.features(image)
        heads = (self.heads.gn_conv_1, self.heads.gn_conv_2, self.heads.gn_conv_last)
        seen = zip(heads, (h0, h1, h2), strict=True)
        s0, s1, s2 = (torch.sigmoid(head(h).to(image.dtype)) for head, h in seen)
        scales = torch.stack([s0, upsample(s1, 2), upsample(s2, 4)], dim=1)
        # 662 values: within TensorRT's limit of 3840 for TopK, so sorting is the short way here
        y_scale = pooling.top_mean(scales.flatten(3), glam.SCALE_POOL_FRACTION)
        w0, w1, w2 = glam.SCALE_WEIGHTS
        saliency = w0 * scales[:, 0] + w1 * scales[:, 1] + w2 * scales[:, 2]
        return saliency, y_scale, h2.to(image.dtype).amax((2, 3))


class LocalGraph(nn.Module):
    """patches -> saliency_patches, z_k; see `networks.glam`."""

    def __init__(self, network: DetectionNetwork) -> None:
        super().__init__()
        resnet = network.dn_resnet
        self.stem = grey_stem(resnet.conv1, resnet.bn1)
        blocks = (block for block in resnet.modules() if isinstance(block, BasicBlock))
        self.blocks = nn.Sequential(*(FoldedBasicBlock(block) for block in blocks))
        self.head = network.gn_conv_last

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        h = self.blocks(F.max_pool2d(F.relu(self.stem(patches.to(self.stem.weight.dtype))), 3, 2, 1))
        return torch.sigmoid(self.head(h).to(patches.dtype)), h.to(patches.dtype).amax((2, 3))


class FusionGraph(nn.Module):
    """Without attention and fusion layers: maps and places -> y_global, y_local, saliency."""

    def forward(
        self, saliency_global: Tensor, y_scale: Tensor, saliency_patches: Tensor, patch_locations: Tensor
    ) -> tuple[Tensor, ...]:
        used = (patch_locations[..., 0] >= 0).float().sum(1)
        cells = glam.PATCH_MAP**2
        count = torch.round(glam.PATCH_POOL_FRACTION * cells * used)
        y_local = top_mean(saliency_patches.transpose(1, 2).flatten(2), count.unsqueeze(1))
        return y_scale.mean(1), y_local, fused_map(saliency_global, saliency_patches, patch_locations)


class JointFusionGraph(nn.Module):
    """With attention and fusion layers: maps, places, z_g and z_k -> also y_fusion and attention."""

    def __init__(self, network: GlamNetwork) -> None:
        super().__init__()
        self.mil_attn_V, self.mil_attn_U, self.mil_attn_w = network.mil_attn_V, network.mil_attn_U, network.mil_attn_w
        self.fusion_dnn = network.fusion_dnn

    def forward(  # noqa: PLR0917 (the graph's inputs, in its order)
        self,
        saliency_global: Tensor,
        y_scale: Tensor,
        saliency_patches: Tensor,
        patch_locations: Tensor,
        z_g: Tensor,
        z_k: Tensor,
    ) -> tuple[Tensor, ...]:
        gate = torch.tanh(self.mil_attn_V(z_k)) * torch.sigmoid(self.mil_attn_U(z_k))
        score = self.mil_attn_w(gate).squeeze(-1)
        attention = torch.softmax(score.masked_fill(patch_locations[..., 0] < 0, float("-inf")), dim=1)
        y_k = top_mean(saliency_patches.flatten(3), pooling.top_count(glam.PATCH_POOL_FRACTION, glam.PATCH_MAP**2))
        weight = attention.unsqueeze(-1)
        z_l = (weight * z_k).sum(1)
        y_fusion = torch.sigmoid(self.fusion_dnn(torch.cat([z_g, z_l], dim=1)))
        fused = fused_map(saliency_global, saliency_patches, patch_locations)
        return y_scale.mean(1), (weight * y_k).sum(1), fused, y_fusion, attention


def fused_map(saliency_global: Tensor, saliency_patches: Tensor, patch_locations: Tensor) -> Tensor:
    """The fused map [N,2,2944,1920], composed on the 736 x 480 grid and enlarged last."""
    wide = upsample(saliency_global, GLAM.cell // GLAM.grid_cell)
    return upsample((paste(saliency_patches, patch_locations) + wide) / 2, GLAM.grid_cell)


def paste(saliency_patches: Tensor, patch_locations: Tensor) -> Tensor:
    """Patch maps at their places on a zero canvas [N,2,736,480], later slots over earlier ones.

    Each canvas cell looks up the index of the patch cell that owns it, so the order needs no scattered writes.
    """
    n, side = saliency_patches.shape[0], glam.PATCH_MAP
    cells = saliency_patches.transpose(1, 2).flatten(2)
    # the index after the last cell is that of an appended zero
    owner = torch.full((n, *GLAM.grid_shape), GLAM.patches.slots * side**2, dtype=torch.int64)
    # an unused slot is moved off the canvas
    places = torch.where(patch_locations < 0, GLAM.input_shape[0], patch_locations)
    places = torch.div(places, GLAM.grid_cell, rounding_mode="trunc")
    for k in range(GLAM.patches.slots):
        rows = (torch.arange(GLAM.grid_shape[0]) - places[:, k, :1]).unsqueeze(2)
        columns = (torch.arange(GLAM.grid_shape[1]) - places[:, k, 1:]).unsqueeze(1)
        inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
        owner = torch.where(inside, (k * side + rows) * side + columns, owner)
    padded = torch.cat([cells, torch.zeros_like(cells[..., :1])], dim=2)
    index = owner.flatten(1).unsqueeze(1).expand(-1, len(GLAM.classes), -1)
    return padded.gather(2, index).reshape(-1, len(GLAM.classes), *GLAM.grid_shape)


def graph_modules(network: GlamNetwork) -> dict[Stage, nn.Module]:
    """The three graphs of a network in eval mode; unchanged tensors are shared with it."""
    fusion = JointFusionGraph(network) if network.spec is GLAM else FusionGraph()
    modules: dict[Stage, nn.Module] = {
        "global": GlobalGraph(network.global_network),
        "local": LocalGraph(network.detection_network),
        "fusion": fusion,
    }
    return {stage: module.eval().requires_grad_(False) for stage, module in modules.items()}

"""The three graphs of GMIC as torch modules made for export.

What differs from `reference.gmic`: batch norms are folded into convolutions (those before a convolution's ReLU become a
scale and a shift), and the local stem's three input channels are folded to one. Each export compares the graphs with
the reference (`steps.compare`).
"""

import torch
from torch import Tensor, nn

from glam_deploy.networks import Stage, gmic
from glam_export.graphs.layers import ResNetGraph, TrunkGraph
from glam_export.reference import pooling
from glam_export.reference.gmic import GmicNetwork
from glam_export.reference.gmic.network import fuse


class GlobalGraph(TrunkGraph):
    """image -> saliency_global, y_global, z_g; see `networks.gmic`."""

    def __init__(self, network: GmicNetwork) -> None:
        super().__init__(network.ds_net)
        self.head = network.left_postprocess_net.gn_conv_last

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, _, features = self.features(image)
        saliency = torch.sigmoid(self.head(features).to(image.dtype))
        # 28 of 1380 values: within TensorRT's limit of 3840 for TopK
        y_global = pooling.top_mean(saliency.flatten(2), gmic.TOP_FRACTION)
        return saliency, y_global, features.to(image.dtype).amax((2, 3))


class LocalGraph(ResNetGraph):
    """patches -> z_k; see `networks.gmic`."""

    def forward(self, patches: Tensor) -> Tensor:
        return self.features(patches).to(patches.dtype).mean((2, 3))


class FusionGraph(nn.Module):
    """patch_locations, z_g, z_k -> y_local, y_fusion, attention; see `networks.gmic`."""

    def __init__(self, network: GmicNetwork) -> None:
        super().__init__()
        self.mil_attn_V, self.mil_attn_U, self.mil_attn_w = network.mil_attn_V, network.mil_attn_U, network.mil_attn_w
        self.classifier_linear, self.fusion_dnn = network.classifier_linear, network.fusion_dnn

    def forward(self, patch_locations: Tensor, z_g: Tensor, z_k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return fuse(self, patch_locations, z_g, z_k)


def graph_modules(network: GmicNetwork) -> dict[Stage, nn.Module]:
    """The three graphs of a network in eval mode; tensors that are unchanged are shared with it."""
    modules: dict[Stage, nn.Module] = {
        "global": GlobalGraph(network),
        "local": LocalGraph(network.dn_resnet),
        "fusion": FusionGraph(network),
    }
    return {stage: module.eval().requires_grad_(False) for stage, module in modules.items()}

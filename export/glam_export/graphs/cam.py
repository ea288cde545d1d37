"""The graph of CAM as a torch module made for export.

What differs from `reference.cam`: batch norms are folded into convolutions, three input channels are folded to one, and
the score is made from the map's logits, because mean and linear layer commute.
"""

import torch
from torch import Tensor, nn

from glam_deploy.networks import Stage
from glam_export.graphs.layers import ResNetGraph
from glam_export.reference.cam import CamNetwork


class GlobalGraph(ResNetGraph):
    """image -> saliency_global, y_global; see `networks.cam`."""

    def __init__(self, network: CamNetwork) -> None:
        super().__init__(network)
        self.head = nn.Conv2d(network.fc.in_features, network.fc.out_features, 1)
        self.head.weight = nn.Parameter(network.fc.weight[:, :, None, None])
        self.head.bias = network.fc.bias

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.head(self.features(image)).to(image.dtype)
        return torch.sigmoid(logits), torch.sigmoid(logits.mean((2, 3)))


def graph_modules(network: CamNetwork) -> dict[Stage, nn.Module]:
    """The graph of a network in eval mode."""
    return {"global": GlobalGraph(network).eval().requires_grad_(False)}

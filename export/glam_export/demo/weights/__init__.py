"""Demo weights, made from code: they find the lesions of `glam_export.demo.phantom` and were not trained on patients.

All modules are set by hand, with the rules of `circuit`; `parts` has what the networks share. A small random
disturbance on every tensor keeps every layer in play.
"""

import math

import torch
from torch import Tensor

from glam_deploy.errors import UsageError
from glam_deploy.networks import CAM, GLAM, GMIC, NetworkSpec
from glam_export.demo.weights import cam, glam, gmic
from glam_export.demo.weights.parts import State
from glam_export.reference.cam import CamNetwork
from glam_export.reference.glam import GlamNetwork
from glam_export.reference.gmic import GmicNetwork

DISTURBANCE = 0.003
"""Size of the random part: of a layer's output for unit inputs, and of batch-norm tensors a tenth of it."""


def demo_state_dict(*, network: NetworkSpec = GLAM, seed: int = 0) -> State:
    """The demo network's tensors by published key: float32 (and int64 batch counters).

    `network`: GLAM has attention and fusion layers, GLAM_CONCATENATION has none; CAM is a ResNet-18. `seed` draws the
    disturbance; the same arguments give the same tensors. Raises UsageError for a negative seed.
    """
    if seed < 0:
        raise UsageError(f"demo weights: seed {seed}; give a whole number >= 0")
    with torch.device("meta"):
        shapes = _module(network).state_dict()
    state = {name: _neutral(name, like) for name, like in shapes.items()}
    if network is CAM:
        cam.set_weights(state)
    elif network is GMIC:
        gmic.set_weights(state)
    else:
        glam.set_weights(state, network)
    _disturb(state, torch.Generator().manual_seed(seed))
    return state


def _module(network: NetworkSpec) -> torch.nn.Module:
    if network is CAM:
        return CamNetwork(network, cam.LAYOUT)
    return GmicNetwork(network) if network is GMIC else GlamNetwork(network)


def _neutral(name: str, like: Tensor) -> Tensor:
    """Identity for batch norms, zeros for convolutions."""
    one = name.endswith("running_var") or (like.ndim == 1 and name.endswith("weight"))
    return torch.full(like.shape, int(one), dtype=like.dtype)


def _disturb(state: State, generator: torch.Generator) -> None:
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        fan_in = tensor[0].numel() if tensor.ndim > 1 else 100
        noise = torch.randn(tensor.shape, generator=generator) * DISTURBANCE / math.sqrt(fan_in)
        tensor.add_(noise.abs() if name.endswith("running_var") else noise)

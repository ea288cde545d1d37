"""The network in PyTorch on the same card in the same run: the baselines of the engines."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glam_bench.clock import spread
from glam_bench.gpu.plan import GpuContext
from glam_bench.gpu.torch_engine import RUNS, load_network, tf32, torch_ms
from glam_deploy.bundle import open_bundle
from glam_deploy.networks import GLAM
from glam_deploy.runtime import patching
from glam_export.reference.glam import GlamNetwork

DEPTHS = (1, 3, 6)


def run(context: GpuContext) -> None:
    """Eager FP32 without and with TF32, then half with channels last: times of the whole chain and of the networks."""
    device = torch.device("cuda", context.options.device)
    torch.backends.cudnn.benchmark = True
    network, image = load_network(open_bundle(context.options.bundle)).to(device), _image(device)
    tf32(allowed=False)
    _add(context, "torch fp32", network, image)
    tf32(allowed=True)
    _add(context, "torch tf32", network, image)
    network = network.half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    half = image.half().to(memory_format=torch.channels_last)
    _add(context, "torch half channels_last", network, half)


def _image(device: torch.device) -> Tensor:
    return torch.randn(1, 1, *GLAM.input_shape, generator=torch.Generator().manual_seed(0)).to(device)


def _add(context: GpuContext, name: str, network: GlamNetwork, image: Tensor) -> None:
    depths = DEPTHS[:1] if context.options.quick else DEPTHS
    runs = replace(RUNS, seconds=0.3) if context.options.quick else RUNS
    rows: dict[str, Any] = {}
    for k in depths:
        works: dict[str, Callable[[], object]] = {
            "chain": lambda k=k: chain(network, image, k),  # type: ignore[misc]
            "networks": lambda k=k: networks(network, image, k),  # type: ignore[misc]
        }
        with torch.inference_mode():
            rows[f"n=1,k={k}"] = {what: spread(torch_ms(work, runs)) for what, work in works.items()}
    context.add(**{name: rows})


def chain(network: GlamNetwork, image: Tensor, k: int) -> tuple[Tensor, ...]:
    """From a standardized image on the GPU to scores and fused map there; patches are chosen on the host, as published.

    `image`: [1, 1, 2944, 1920] in the network's type.
    """
    saliency, y_scale, z_g = network.global_network(image)
    cells, _ = patching.choose_windows(saliency[0].float().cpu().numpy(), k, GLAM.patches)
    corners = [patching.cell_to_pixel(cell, GLAM) for cell in cells]
    patches = torch.stack([image[0, :, r : r + GLAM.patches.side, c : c + GLAM.patches.side] for r, c in corners])
    maps, z_k = network.detection_network(patches)
    local = network.aggregate(maps[None], z_k[None])
    fused = network.fuse_saliency(saliency, maps[None], torch.tensor([corners]))
    head = () if local.z_l is None else (network.predict_fusion(z_g, local.z_l),)
    return (y_scale.mean(1), local.y_local, fused, *head)


def networks(network: GlamNetwork, image: Tensor, k: int) -> tuple[Tensor, ...]:
    """Both networks and nothing between them: patches from fixed places."""
    corners = np.arange(k) * 128
    patches = torch.stack([image[0, :, r : r + GLAM.patches.side, r : r + GLAM.patches.side] for r in corners.tolist()])
    return (*network.global_network(image), *network.detection_network(patches))

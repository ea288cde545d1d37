"""Each learned stage as a function from record to record, on any engine that keeps the graph contract."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.engines.base import Engine
from glam_deploy.networks import GraphContract
from glam_deploy.records import Float32, GlobalMaps, LocalMaps, Patches, Predictions


def run_global(engine: Engine, images: Float32) -> GlobalMaps:
    """Global module: standardized images, float32 [N, 1, 2944, 1920]."""
    out = engine.run({"image": images})
    return GlobalMaps(saliency=out["saliency_global"], y_scale=out["y_scale"], z_g=out["z_g"])


def run_local(engine: Engine, patches: Patches) -> LocalMaps:
    """Local module, patch by patch: on a CPU a batch is no faster, and one patch's feature maps bound the memory."""
    n, k = patches.locations.shape[:2]
    outputs = [engine.run({"patches": p[None]}) for p in patches.pixels.reshape(n * k, *patches.pixels.shape[2:])]
    maps, vectors = (np.concatenate([out[name] for out in outputs]) for name in ("saliency_patches", "z_k"))
    return LocalMaps(saliency=maps.reshape(n, k, *maps.shape[1:]), z_k=vectors.reshape(n, k, -1))


def fusion_inputs(
    contract: GraphContract, maps: GlobalMaps, patches: Patches, local: LocalMaps
) -> dict[str, NDArray[Any]]:
    """What the fusion graph takes: K patches in the first of its slots, the rest marked unused."""
    slots = contract.inputs["patch_locations"].shape[0]
    everything = {
        "saliency_global": maps.saliency,
        "y_scale": maps.y_scale,
        "saliency_patches": _slots(local.saliency, slots, 0),
        "patch_locations": _slots(patches.locations, slots, -1),
        "z_g": maps.z_g,
        "z_k": _slots(local.z_k, slots, 0),
    }
    return {name: everything[name] for name in contract.inputs}


def run_fusion(engine: Engine, maps: GlobalMaps, patches: Patches, local: LocalMaps) -> Predictions:
    """Fusion: scores of the images. The fused map itself is composed from its parts when asked for."""
    out = engine.run(fusion_inputs(engine.contract, maps, patches, local))
    used = patches.locations.shape[1]
    attention = out["attention"][:, :used] if "attention" in out else None
    return Predictions(
        y_global=out["y_global"], y_local=out["y_local"], y_fusion=out.get("y_fusion"), attention=attention
    )


def _slots(values: NDArray[Any], slots: int, empty: int) -> NDArray[Any]:
    spare = [(0, 0)] * values.ndim
    spare[1] = (0, slots - values.shape[1])
    return np.pad(values, spare, constant_values=empty)

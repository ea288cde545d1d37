"""Each graph against the reference, output by output, on inputs that look like the real ones."""

from collections.abc import Mapping

import numpy as np

from glam_deploy import spec
from glam_deploy.engines.base import Arrays, Engine
from glam_deploy.metrics import Comparison, compare
from glam_deploy.patches import host
from glam_deploy.records import Float32, LocalMaps, Patches
from glam_deploy.runtime import stages

Engines = Mapping[spec.Stage, Engine]


def compare_graphs(reference: Engines, candidate: Engines, image: Float32) -> list[Comparison]:
    """Global, local and fusion, each from the reference's own inputs, so that a fault shows where it is.

    `image`: float32 [2944, 1920], standardized. The local module sees the first chosen patch. Fusion sees six patches
    at the six places chosen, which overlap or touch as they come, with maps that all differ.
    """
    images = image[None, None]
    maps = stages.run_global(reference["global"], images)
    patches = host.select(images, maps, spec.MAX_PATCHES)
    first = Patches(locations=patches.locations[:, :1], pixels=patches.pixels[:, :1], flat=patches.flat)
    local = _variations(stages.run_local(reference["local"], first))
    inputs: dict[spec.Stage, Arrays] = {
        "global": {"image": images},
        "local": {"patches": first.pixels[0]},
        "fusion": stages.fusion_inputs(reference["fusion"].contract, maps, patches, local),
    }
    return [c for stage in spec.STAGES for c in _compare_stage(reference[stage], candidate[stage], inputs[stage])]


def _compare_stage(reference: Engine, candidate: Engine, inputs: Arrays) -> list[Comparison]:
    expected, found = reference.run(inputs), candidate.run(inputs)
    return [compare(f"{reference.stage}.{name}", found[name], expected[name]) for name in expected]


def _variations(one: LocalMaps) -> LocalMaps:
    """Six different patches from one: the map turned and mirrored, the vector rolled."""
    saliency, z = one.saliency[0, 0], one.z_k[0, 0]
    turned = [np.rot90(saliency, k, axes=(1, 2)) for k in range(4)]
    turned += [saliency[:, ::-1], saliency[:, :, ::-1]]
    return LocalMaps(saliency=np.stack(turned)[None], z_k=np.stack([np.roll(z, k) for k in range(6)])[None])

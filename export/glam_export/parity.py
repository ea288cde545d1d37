"""Each graph against the reference, output by output, on inputs that look like the real ones."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from glam_deploy.engines.base import Arrays, Engine
from glam_deploy.metrics import Comparison, compare
from glam_deploy.networks import GLAM, Stage
from glam_deploy.patches import host
from glam_deploy.precision import Precision
from glam_deploy.records import Float32, GlobalMaps, LocalMaps
from glam_deploy.runtime import stages

Engines = Mapping[Stage, Engine]


@dataclass(frozen=True, kw_only=True)
class Example:
    """What the reference makes of one stage's inputs."""

    inputs: Arrays
    outputs: Arrays


Examples = Mapping[Stage, Example]


def reference_examples(reference: Engines, image: Float32) -> Examples:
    """Global, local and fusion, each on the reference's own inputs, so that a fault shows where it is.

    `image`: float32 [2944, 1920], standardized. The local module sees the first chosen patch. Fusion sees six patches
    at the six places chosen, which overlap or touch as they come, with maps that all differ.
    """
    images = image[None, None]
    overview = _example(reference["global"], {"image": images})
    found = overview.outputs
    maps = GlobalMaps(saliency=found["saliency_global"], y_scale=found["y_scale"], z_g=found["z_g"])
    patches = host.select(images, maps, GLAM.patches.slots, GLAM)
    local = _example(reference["local"], {"patches": patches.pixels[0, :1]})
    slots = stages.fusion_inputs(reference["fusion"].contract, maps, patches, _variations(local.outputs))
    return {"global": overview, "local": local, "fusion": _example(reference["fusion"], slots)}


def compare_graphs(examples: Examples, candidate: Engines, *, precision: Precision = "fp32") -> list[Comparison]:
    """Hold each stage of a candidate, which computes in `precision`, against the reference."""
    rows = []
    for stage, engine in candidate.items():
        expected, found = examples[stage].outputs, engine.run(examples[stage].inputs)
        rows += [compare(f"{stage}.{name}", found[name], expected[name], precision=precision) for name in expected]
    return rows


def _example(engine: Engine, inputs: Arrays) -> Example:
    return Example(inputs=inputs, outputs=engine.run(inputs))


def _variations(one: Arrays) -> LocalMaps:
    """Six different patches from one: the map turned and mirrored, the vector rolled."""
    saliency, z = one["saliency_patches"][0], one["z_k"][0]
    turned = [np.rot90(saliency, k, axes=(1, 2)) for k in range(4)]
    turned += [saliency[:, ::-1], saliency[:, :, ::-1]]
    return LocalMaps(saliency=np.stack(turned)[None], z_k=np.stack([np.roll(z, k) for k in range(6)])[None])

"""The graph of each stage against the reference's, output by output, on inputs such as the pipeline feeds them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from glam_deploy.agreement.metrics import Comparison, compare
from glam_deploy.engines.base import Arrays, Engine
from glam_deploy.networks import NetworkSpec, Stage
from glam_deploy.precision import Precision
from glam_deploy.records import Float32, LocalMaps
from glam_deploy.runtime import host_chain, patching

Engines = Mapping[Stage, Engine]


@dataclass(frozen=True, kw_only=True)
class Example:
    """Inputs of one stage and the reference's outputs for them."""

    inputs: Arrays
    outputs: Arrays


Examples = Mapping[Stage, Example]


def reference_examples(reference: Engines, image: Float32, network: NetworkSpec) -> Examples:
    """Global, local and fusion, each on the reference's own inputs, so that a fault shows in its own stage.

    `image`: float32 [rows, columns] of `network.input_shape`, standardized. The local stage sees the first chosen
    patch. Fusion sees all patch slots at the places chosen, overlapping or not, with maps that all differ.
    """
    images = image[None, None]
    overview = _example(reference["global"], {"image": images})
    maps = host_chain.global_maps(overview.outputs)
    patches = patching.select(images, maps, network.patches.slots, network)
    local = _example(reference["local"], {"patches": patches.pixels[0, :1]})
    slots = host_chain.fusion_inputs(reference["fusion"].contract, maps, patches, _variations(local.outputs))
    return {"global": overview, "local": local, "fusion": _example(reference["fusion"], slots)}


def compare_graphs(examples: Examples, candidate: Engines, *, precision: Precision = "fp32") -> list[Comparison]:
    """Compare each stage of a candidate, which computes in `precision`, with the reference."""
    rows = []
    for stage, engine in candidate.items():
        expected, found = examples[stage].outputs, engine.run(examples[stage].inputs)
        rows += [compare(f"{stage}.{name}", found[name], expected[name], precision=precision) for name in expected]
    return rows


def _example(engine: Engine, inputs: Arrays) -> Example:
    return Example(inputs=inputs, outputs=engine.run(inputs))


def _variations(one: Arrays) -> LocalMaps:
    """Six different patches from one: the map, if there is one, turned and mirrored, the vector rolled."""
    z_k = np.stack([np.roll(one["z_k"][0], k) for k in range(6)])[None]
    if "saliency_patches" not in one:
        return LocalMaps(saliency=None, z_k=z_k)
    saliency = one["saliency_patches"][0]
    turned = [np.rot90(saliency, k, axes=(1, 2)) for k in range(4)]
    turned += [saliency[:, ::-1], saliency[:, :, ::-1]]
    return LocalMaps(saliency=np.stack(turned)[None], z_k=z_k)

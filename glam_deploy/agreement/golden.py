"""The golden case of a bundle, and the graph of each stage, both against the reference on inputs of the pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from glam_deploy.agreement.answers import COMPARED, Answer, answer
from glam_deploy.agreement.maps import compare_patches
from glam_deploy.agreement.metrics import Comparison, compare
from glam_deploy.bundle import Bundle
from glam_deploy.bundle.npz import arrays_of
from glam_deploy.engines.base import Arrays, Engine
from glam_deploy.errors import BundleError
from glam_deploy.networks import NetworkSpec, Stage
from glam_deploy.precision import Precision
from glam_deploy.preprocess import prepare
from glam_deploy.preprocess.prepare import check_pixels
from glam_deploy.records import MAX_PIXELS, Float32, Int64, LocalMaps, Mammogram, Patches, Source, View
from glam_deploy.runtime import host_chain, patching
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result

GOLDEN_FILE = "golden/case.npz"
MAX_BYTES = 8 * MAX_PIXELS
"""Most bytes of all of its arrays: pixels, and outputs of a network."""

Engines = Mapping[Stage, Engine]


def write_golden(path: Path, mammogram: Mammogram, expected: Result) -> None:
    """Save a raw view and the reference's outputs for it."""
    arrays: dict[str, Any] = {"pixels": mammogram.pixels, "view": np.array(mammogram.view.value), **answer(expected)}
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)


def read_golden(bundle: Bundle) -> tuple[Mammogram, Answer]:
    """The raw view of the golden case, and the reference's outputs for it. Raises BundleError if the file has none."""
    try:
        case = arrays_of(bundle.read(GOLDEN_FILE), names=("pixels", "view"), nbytes=MAX_BYTES, optional=COMPARED)
        source = Source(name="golden case", kind="array")
        view = Mammogram(pixels=case["pixels"], view=View(str(case["view"])), source=source)
        check_pixels(view.pixels)
    except BundleError:
        raise
    except Exception as error:  # zipfile and numpy raise many kinds for a damaged or hostile file
        raise BundleError(
            f"{bundle.folder}: {GOLDEN_FILE} cannot be read ({type(error).__name__}: {error}). Export the checkpoint "
            "again."
        ) from error
    return view, {name: case[name] for name in COMPARED if name in case}


def golden_patches(bundle: Bundle) -> int:
    """How many patches the golden case was made with."""
    return bundle.manifest.golden.patches


def check_golden(bundle: Bundle, pipeline: Pipeline) -> list[Comparison]:
    """Run the bundle's golden case, preprocessing included, and compare each output with the reference's.

    The limits of an output are those of the coarsest precision among the stages that compute it, as the engine's
    identity has them. Patches must lie where the reference's do. Where the global stage computes in less than FP32, the
    gate's rule for ties holds too (`ties.are_tied`): a tied patch counts as the reference's, and the outputs that
    depend on the patches are computed for those of the reference, as in the gate.
    `pipeline.patches` must be `golden_patches(bundle)`.
    """
    computed_in = pipeline.identity.precision
    view, expected = read_golden(bundle)
    result = pipeline(view)
    found = {name: getattr(result, name) for name in expected}
    tied = 0 if computed_in["global"].weights == "fp32" else _tied(found, expected, bundle.network)
    if tied:
        found |= _on_patches(pipeline.engines, view, expected["patch_locations"])
    rows = [
        compare(name, values, expected[name], precision=computed_in.coarsest(COMPARED[name]))
        for name, values in found.items()
        if values.size  # a network without patches has no places of them
    ]
    return [replace(row, tied=tied) if row.name == "patch_locations" else row for row in rows]


def _tied(found: Answer, expected: Answer, network: NetworkSpec) -> int:
    """How many patches lie elsewhere, all of them tied; 0 where any is not."""
    if found["patch_locations"].shape != expected["patch_locations"].shape:
        return 0
    patches = compare_patches(found, expected, network)
    return sum(patch.tied for patch in patches) if all(patch.agrees for patch in patches) else 0


def _on_patches(engines: Mapping[Stage, Engine], view: Mammogram, locations: Int64) -> Answer:
    """An engine's outputs for these patches: the fields of Result that depend on them."""
    image = prepare(view).image
    maps = host_chain.run_global(engines["global"], image[None, None])
    pixels = patching.crop(image, locations, engines["local"].network.patches.side)
    flat = patching.contrast_stretch(maps.saliency[0])[1]
    patches = Patches(locations=locations[None], pixels=pixels[None], flat=flat[None])
    local = host_chain.run_local(engines["local"], patches)
    scores = host_chain.run_fusion(engines["fusion"], maps, patches, local)
    values: dict[str, Any] = {"y_local": scores.y_local, "y_fusion": scores.y_fusion, "attention": scores.attention}
    values |= {"saliency_patches": local.saliency, "patch_locations": patches.locations}
    return {name: value[0] for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Example:
    """Inputs of one stage and the reference's outputs for them."""

    inputs: Arrays
    outputs: Arrays


Examples = Mapping[Stage, Example]


def reference_examples(reference: Engines, image: Float32, network: NetworkSpec) -> Examples:
    """Each stage of the network on the reference's own inputs, so that a fault shows in its own stage.

    `image`: float32 [rows, columns] of `network.input_shape`, standardized. The local stage sees the first chosen
    patch. Fusion sees all patch slots at the places chosen, overlapping or not, with maps that all differ.
    """
    images = image[None, None]
    overview = _example(reference["global"], {"image": images})
    if network.selection is None:
        return {"global": overview}
    maps = host_chain.global_maps(overview.outputs)
    patches = patching.select(images, maps, network.patches.slots, network)
    local = _example(reference["local"], {"patches": patches.pixels[0, :1]})
    slots = host_chain.fusion_inputs(reference["fusion"].contract, maps, patches, _variations(local.outputs))
    return {"global": overview, "local": local, "fusion": _example(reference["fusion"], slots)}


def compare_graphs(examples: Examples, candidate: Engines, *, precision: Precision = "fp32") -> list[Comparison]:
    """Compare each stage of a candidate, which computes in `precision`, with the reference, in all of its outputs."""
    rows = []
    for stage, engine in candidate.items():
        expected, found = examples[stage].outputs, engine.run(examples[stage].inputs)
        rows += [compare(f"{stage}.{name}", found[name], expected[name], precision=precision) for name in found]
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

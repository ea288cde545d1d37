"""Calibration data of graphs in 8 bits: inputs of each stage, made from images by preprocessing and the reference."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from glam_deploy import input_files, reading
from glam_deploy.engines.base import Arrays, Engine
from glam_deploy.errors import Caller, InputError
from glam_deploy.networks import Stage
from glam_deploy.preprocess import prepare
from glam_deploy.records import Float32, Mammogram, Source, View
from glam_deploy.runtime import host_chain, patching
from glam_export.demo.phantom import phantom_view

SEEDS = (40, 41, 42, 43)
"""Seeds of the calibration phantoms; the demo, the golden case and the tests use others."""
JUDGED = (44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55)
"""Seeds of the phantoms by which mixtures of precisions are judged: with fewer, a rare moved patch may not occur."""
PATCHES = 2
"""Number of patches of each image: the first two that are selected."""

Calibration = Mapping[Stage, Sequence[Arrays]]


def calibration(engine: Engine, images: Sequence[Float32]) -> Calibration:
    """Inputs of the global and, if the network has it, of the local graph.

    `engine`: the FP32 global stage, whose map selects the patches. `images`: float32 [2944, 1920], standardized; at
    least one.
    """
    inputs = [{"image": image[None, None]} for image in images]
    if engine.network.selection is None:
        return {"global": inputs}
    patches = [_patches(engine, one) for one in inputs]
    return {"global": inputs, "local": [{"patches": patch[None]} for row in patches for patch in row]}


def phantoms(seeds: Sequence[int] = SEEDS) -> list[Float32]:
    """Standardized images, float32 [2944, 1920], of phantoms with the lesions of the demo; views alternate."""
    return [prepare(_mammogram(seed, view)).image for seed, view in zip(seeds, cycle(View), strict=False)]


def images_in(folder: Path) -> list[Float32]:
    """Standardized images from a folder, found and read as by `run`. Raises UsageError for none, InputError."""
    return [_image_of(path) for path in input_files.find_inputs([folder])]


def _image_of(path: Path) -> Float32:
    try:
        return prepare(reading.read(path)).image
    except InputError as error:
        raise type(error)(f"{path}: {error.message_for(Caller.CALIBRATION)}") from error


def _patches(engine: Engine, inputs: Arrays) -> Float32:
    found = engine.run(inputs)
    maps = host_chain.global_maps(found)
    pixels: Float32 = patching.select(inputs["image"], maps, PATCHES, engine.network).pixels[0]
    return pixels


def _mammogram(seed: int, view: View) -> Mammogram:
    name = f"phantom {seed} {view}"
    return Mammogram(pixels=phantom_view(seed, view).pixels, view=view, source=Source(name=name, kind="array"))

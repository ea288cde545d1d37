"""Times of each kernel, with its inputs in L2 and not, and the share of the card's bandwidth that it reaches."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from glam_bench.gpu import maps
from glam_bench.gpu.clock import Timer, Work
from glam_bench.gpu.maps import SLOTS, places
from glam_bench.gpu.plan import GpuContext
from glam_bench.gpu.views import DETECTOR, VIEWS
from glam_bench.gpu.workbench import Bench
from glam_bench.measurements.kernels import head_inputs
from glam_deploy.gpu.kernels import placed, staging
from glam_deploy.networks import GLAM, glam

FLUSH_BYTES = 256 * 1024**2
"""Written before a launch, so that none of its inputs is left in L2, which has at most 126 MB."""
_ROWS, _COLUMNS = DETECTOR
_VALUES = 2 * 555 * 427 + _ROWS * 80 + _COLUMNS * 104 + 2 * (_ROWS + _COLUMNS) + 303 * 132 + 416 * 320
PLACE_BYTES = _ROWS * _COLUMNS * 2 + int(13.625 * _ROWS * _COLUMNS / 8) + 2 * 2 * _VALUES
"""Of an image that the foreground fills: its pixels; mask and core, written once each and read 11.125 times in
all, and first columns of runs, half as large; the values of the samples, read and written."""
PIXELS = GLAM.input_shape[0] * GLAM.input_shape[1]
MAP_BYTES = len(GLAM.classes) * GLAM.map_shape[0] * GLAM.map_shape[1] * 4
WEIGHT_BYTES = 4 * sum(prod(shape) for shape in GLAM.fusion_weights.values())
PATCH_MAP_BYTES = len(GLAM.classes) * glam.PATCH_MAP**2 * 4


def run(context: GpuContext) -> None:
    """Times for one image with K = 1, 3, 6, and for an exam of four images."""
    bench = Bench(context.options.device)
    rates = {
        "copy": context.record.results("ceilings").get("copy_bytes_per_s"),
        "data_sheet": context.record.results("facts").get("gpu", {}).get("memory_bandwidth"),
    }
    for n, k in ((1, 1),) if context.options.quick else ((1, 1), (1, 3), (1, 6), (4, 1)):
        rows = {
            name: _row(microseconds, bytes_moved(k, n).get(name), rates)
            for name, microseconds in timed(bench, k, n).items()
        }
        context.add(**{f"n={n},k={k}": rows})


def bytes_moved(k: int, n: int) -> dict[str, int]:
    """Bytes that each step reads and writes, of views that fill the window, as docs/kernels.md counts them.

    Bytes that are read a second time, from L2 or not, count again.
    """
    image = PIXELS * 4
    return {
        "place, uint16": n * PLACE_BYTES,
        "standardize, uint16": n * (2 * PIXELS * 2 + image),
        "standardize, float32": n * (2 * image + image),
        "propose": n * k * MAP_BYTES,
        "crop": n * k * 2 * GLAM.patches.side**2 * 4,
        "fuse": n * (2 * image + MAP_BYTES + k * PATCH_MAP_BYTES),
        "examine": n * image,
        "head": n * (5 * k * PATCH_MAP_BYTES + WEIGHT_BYTES),
    }


def timed(bench: Bench, k: int, n: int) -> dict[str, dict[str, float]]:
    """Step -> microseconds a launch, "warm" with inputs in L2 as far as they fit, "cold" with nothing in L2."""
    timer = Timer(bench.gpu, bench.stream)
    trash = bench.gpu.allocate(FLUSH_BYTES)

    def flush() -> None:
        bench.stream.fill(trash.address, trash.nbytes, 0)

    return {
        name: {"warm": timer.per_launch_us(work), "cold": timer.per_launch_us(work, before=flush)}
        for name, work in _works(bench, k, n).items()
    }


def _works(bench: Bench, k: int, n: int) -> Mapping[str, Work]:
    rng, stream, kernels = np.random.default_rng(4), bench.stream, bench.kernels
    image = bench.upload(rng.standard_normal((n, 1, *GLAM.input_shape), np.float32))
    maps_in = bench.upload(np.stack([maps.saliency("random", rng) for _ in range(n)]))
    patch_maps = bench.upload(rng.random((n, GLAM.patches.slots, 2, glam.PATCH_MAP, glam.PATCH_MAP), np.float32))
    locations, flags, scratch = bench.upload(places(rng, n, k)), bench.upload(np.zeros(n, np.uint32)), bench.scratch(n)
    patches, fused = bench.poisoned(n * k * GLAM.patches.side**2 * 4), bench.poisoned(n * 2 * PIXELS * 4)
    areas = {dtype: bench.upload(_areas(rng, n, dtype)) for dtype in ("uint16", "float32")}

    def propose() -> None:
        kernels.propose(stream, saliency=maps_in, locations=locations, flags=flags, scratch=scratch, k=k, n=n)

    def crop() -> None:
        kernels.crop(stream, image=image, locations=locations, patches=patches, k=k, n=n)

    def fuse() -> None:
        parts = {"saliency_global": maps_in, "saliency_patches": patch_maps, "locations": locations}
        kernels.fuse(stream, **parts, saliency=fused, flags=flags, n=n)

    def examine() -> None:
        kernels.examine(stream, image=image, flags=flags, n=n)

    parts_of_head = {name: bench.upload(array) for name, array in head_inputs(rng, n, k).items()}
    for name in ("y_global", "y_local", "y_fusion", "attention", "pooled"):
        parts_of_head[name] = bench.poisoned(n * SLOTS * len(GLAM.classes) * 4)  # the size of the largest, `pooled`

    def head() -> None:
        bench.head.launch(stream, {name: memory.address for name, memory in parts_of_head.items()}, n=n)

    def propose_and_crop() -> None:
        propose()
        crop()

    def standardize(dtype: str) -> Work:
        size = staging.area_bytes(*GLAM.input_shape, dtype)
        where = {"areas": areas[dtype], "image": image, "scratch": scratch}
        return lambda: kernels.standardize(stream, **where, n=n, area_bytes=size)

    return {
        "place, uint16": _place_work(bench, n),
        "propose": propose,
        "crop": crop,
        "propose and crop": propose_and_crop,
        "fuse": fuse,
        "examine": examine,
        "head": head,
        # last, because they overwrite the image
        "standardize, uint16": standardize("uint16"),
        "standardize, float32": standardize("float32"),
    }


def _place_work(bench: Bench, n: int) -> Work:
    view = VIEWS["filled"](np.random.default_rng(0))
    area = np.zeros(staging.whole_bytes(*DETECTOR, view.pixels.dtype), np.uint8)
    staging.pack_whole(area, view.pixels, mirrored=view.faces_left, is_mlo=view.view.is_mlo)
    where = {
        "areas": bench.upload(np.tile(area, (n, 1))),
        "scratch": bench.scratch(n),
        "place_scratch": bench.poisoned(placed.place_scratch_bytes(n)),
        "samples": bench.poisoned(n * placed.samples_bytes()),
    }
    return lambda: bench.kernels.place(bench.stream, **where, area_bytes=len(area), n=n)


def _areas(rng: np.random.Generator, n: int, dtype: str) -> np.ndarray:
    areas = np.zeros((n, staging.area_bytes(*GLAM.input_shape, dtype)), np.uint8)
    for area in areas:
        pixels = rng.integers(0, 4096, GLAM.input_shape, np.uint16).astype(dtype)
        staging.pack(area, pixels, row=0, column=0, mirrored=False, network_shape=GLAM.input_shape)
    return areas


def _row(times_us: Mapping[str, float], moved: int | None, rates: Mapping[str, float | None]) -> dict[str, Any]:
    """`share`: of the rate of a large copy, and of the one computed from memory clock and bus, with nothing in L2."""
    row: dict[str, Any] = {"us": dict(times_us), "bytes": moved}
    if moved and times_us["cold"] > 0:
        row["bytes_per_s"] = moved / (times_us["cold"] * 1e-6)
        row["share"] = {name: row["bytes_per_s"] / rate for name, rate in rates.items() if rate}
    return row

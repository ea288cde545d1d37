"""Synthetic inputs of the kernels: ordinary ones, and those on which an incorrect kernel fails.

Maps are float32 [184, 120], one class of one image; pixels have the types and ranges of detectors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from glam_deploy.networks import GLAM
from glam_deploy.records import Float32, Int64, Pixels

SLOTS = GLAM.patches.slots
Maker = Callable[[np.random.Generator], Float32]


def random(rng: np.random.Generator) -> Float32:
    """Independent cells, uniform in [0, 1)."""
    return rng.random(GLAM.map_shape, np.float32)


def smooth(rng: np.random.Generator) -> Float32:
    """Low contrast, so that sums differ in their last bits."""
    steps = rng.standard_normal(GLAM.map_shape, np.float32)
    return np.float32(0.5) + np.float32(1e-4) * np.cumsum(steps, axis=1, dtype=np.float32)


def tied(rng: np.random.Generator) -> Float32:
    """Three levels in squares of 8 cells: many windows have exactly the same sum."""
    levels = rng.integers(0, 3, (GLAM.map_shape[0] // 8, GLAM.map_shape[1] // 8)).astype(np.float32) / 2
    return np.kron(levels, np.ones((8, 8), np.float32))


def periodic(rng: np.random.Generator) -> Float32:
    """Every window holds the same values in another order, so that only the order of the additions decides."""
    tile = rng.random((GLAM.patches.window, GLAM.patches.window), np.float32)
    return np.tile(tile, (6, 4))[: GLAM.map_shape[0], : GLAM.map_shape[1]]


def flat(rng: np.random.Generator) -> Float32:
    """One value in all cells."""
    return np.full(GLAM.map_shape, rng.random(), np.float32)


def spotted(rng: np.random.Generator) -> Float32:
    """Random with NaN, infinities, a negative zero and a denormal in single cells."""
    maps = random(rng)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-42], np.float32)
    maps.flat[rng.choice(maps.size, 2, replace=False)] = rng.choice(odd, 2, replace=False)
    return maps


def unknown(_: np.random.Generator) -> Float32:
    """NaN in all cells."""
    return np.full(GLAM.map_shape, np.nan, np.float32)


KINDS: Mapping[str, tuple[Maker, Maker]] = MappingProxyType(
    {
        "random": (random, random),
        "smooth": (smooth, smooth),
        "tied": (tied, tied),
        "periodic": (periodic, flat),
        "flat": (flat, flat),
        "benign flat": (flat, random),
        "malignant flat": (tied, flat),
        "not finite": (spotted, random),
        "NaN": (unknown, random),
    }
)
"""Name -> benign and malignant map."""


def saliency(kind: str, rng: np.random.Generator) -> Float32:
    """One image's global saliency of a kind, float32 [2, 184, 120]."""
    return np.stack([maker(rng) for maker in KINDS[kind]])


def places(rng: np.random.Generator, n: int, k: int) -> Int64:
    """Locations as `propose` writes them: corners of the frame first, then random ones, which may overlap."""
    last = [(m - GLAM.patches.window) * GLAM.cell for m in GLAM.map_shape]
    corners = np.array([(last[0], last[1]), (0, last[1]), (last[0], 0), (0, 0)])
    locations = np.full((n, SLOTS, 2), -1, np.int64)
    for i in range(n):
        rest = rng.integers(0, [m - GLAM.patches.window + 1 for m in GLAM.map_shape], (SLOTS, 2)) * GLAM.cell
        locations[i, :k] = np.concatenate([np.roll(corners, i, axis=0)[: (k + 1) // 2], rest])[:k]
    return locations


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The window of a source image that the network gets, and its place in the frame of the network."""

    pixels: Pixels
    """uint8, uint16 or float32 [rows, columns], source frame."""
    row: int = 0
    column: int = 0
    mirrored: bool = False


def _uint16(rng: np.random.Generator, rows: int, columns: int, levels: int = 4096) -> Pixels:
    return rng.integers(0, levels, (rows, columns), np.uint16)


def _float32(rng: np.random.Generator, rows: int, columns: int) -> Pixels:
    return rng.random((rows, columns), np.float32) * 4095


ROWS, COLUMNS = GLAM.input_shape
CUTS: Mapping[str, Callable[[np.random.Generator], Cut]] = MappingProxyType(
    {
        "uint16": lambda rng: Cut(pixels=_uint16(rng, ROWS, COLUMNS)),
        "uint16 mirrored": lambda rng: Cut(pixels=_uint16(rng, ROWS, COLUMNS, levels=65536), mirrored=True),
        "uint16 padded": lambda rng: Cut(pixels=_uint16(rng, 2501, 1403), row=221),
        "uint16 padded, mirrored": lambda rng: Cut(pixels=_uint16(rng, 2000, 1917), row=472, column=3, mirrored=True),
        "uint8": lambda rng: Cut(pixels=rng.integers(0, 256, (1777, 1111), np.uint8), row=1, column=801),
        "float32": lambda rng: Cut(pixels=_float32(rng, ROWS, COLUMNS)),
        "float32 mirrored": lambda rng: Cut(pixels=_float32(rng, 1301, 1002), row=7, column=918, mirrored=True),
        "all the same": lambda _: Cut(pixels=np.full(GLAM.input_shape, 65535, np.uint16)),
        "one pixel": lambda _: Cut(pixels=np.full((1, 1), 7, np.uint16), row=ROWS - 1, column=COLUMNS - 1),
    }
)
"""Whole windows and small ones, of every type, mirrored and not, with odd row lengths, and one without contrast."""

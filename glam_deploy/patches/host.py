"""Patch selection, crop and fusion in numpy: the truth that every faster path is held against.

No learned part (Liu et al. 2021, section 2). The order of every FP32 addition is fixed here, so that another
implementation that keeps it (a CUDA kernel) chooses the same windows bit for bit.
"""

import numpy as np

from glam_deploy import spec
from glam_deploy.records import Float32, GlobalMaps, Int64, Patches

SALIENCY_GRID = (spec.INPUT_SHAPE[0] // spec.PATCH_CELL, spec.INPUT_SHAPE[1] // spec.PATCH_CELL)
"""The coarsest grid that holds the fused map exactly (736 x 480): patches start on multiples of 16 input pixels and
their maps have cells of 4, so the fused map is constant on 4 x 4 squares."""


def contrast_stretch(saliency: Float32) -> tuple[Float32, np.ndarray]:
    """Each class's map scaled to 0..1 by its own minimum and maximum, and which classes had no contrast.

    `saliency`: float32 [2, rows, columns]. A class without contrast (maximum == minimum) becomes zeros and so takes no
    part in the choice; the published code divides by zero there. Returns (float32 [2, rows, columns], bool [2]).
    """
    low = saliency.min(axis=(1, 2), keepdims=True)
    span = saliency.max(axis=(1, 2), keepdims=True) - low
    flat = span == 0
    return (saliency - low) / np.where(flat, np.float32(1), span), flat[:, 0, 0]


def window_sums(heat: Float32) -> Float32:
    """Sum of every 32 x 32 window, stride 1: float32 [rows, columns] -> float32 [rows - 31, columns - 31].

    FP32 throughout: first the 32 rows are added from top to bottom, then the 32 columns from left to right.
    """
    rows, columns = heat.shape[0] - spec.WINDOW + 1, heat.shape[1] - spec.WINDOW + 1
    tall = heat[:rows].copy()
    for i in range(1, spec.WINDOW):
        tall += heat[i : i + rows]
    sums = tall[:, :columns].copy()
    for j in range(1, spec.WINDOW):
        sums += tall[:, j : j + columns]
    return sums


def choose_windows(saliency: Float32, count: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The `count` windows of largest summed saliency, greedily, each set to zero once chosen.

    `saliency`: float32 [2, 184, 120]. On a tie the first in row-major order wins; where no contrast is left in either
    class that is (0, 0). Returns the (row, column) of upper-left cells and the flags of `contrast_stretch`.
    """
    stretched, flat = contrast_stretch(saliency)
    heat = stretched[0] + stretched[1]
    chosen = []
    for _ in range(count):
        sums = window_sums(heat)
        row, column = (int(i) for i in np.unravel_index(np.argmax(sums), sums.shape))
        chosen.append((row, column))
        heat[row : row + spec.WINDOW, column : column + spec.WINDOW] = 0
    return chosen, flat


def cell_to_pixel(cell: tuple[int, int]) -> tuple[int, int]:
    """Upper-left input pixel of a map cell, rounded half to even as published: here exactly (16 r, 16 c)."""
    (rows, columns), (map_rows, map_columns) = spec.INPUT_SHAPE, spec.MAP_SHAPE
    return round(cell[0] * rows / map_rows), round(cell[1] * columns / map_columns)


def crop(image: Float32, locations: Int64) -> Float32:
    """The K patches of one standardized image: float32 [2944, 1920], int64 [K, 2] -> float32 [K, 1, 512, 512].

    At this input size a chosen window never leaves the image.
    """
    return np.stack([image[None, r : r + spec.PATCH, c : c + spec.PATCH] for r, c in locations.tolist()])


def select(images: Float32, maps: GlobalMaps, count: int) -> Patches:
    """Choose and cut `count` patches (1..6) in each image.

    `images`: float32 [N, 1, 2944, 1920], standardized.
    """
    choices = [choose_windows(saliency, count) for saliency in maps.saliency]
    locations = np.array([[cell_to_pixel(cell) for cell in cells] for cells, _ in choices], np.int64)
    pixels = np.stack([crop(image[0], at) for image, at in zip(images, locations, strict=True)])
    return Patches(locations=locations, pixels=pixels, flat=np.stack([flat for _, flat in choices]))


def fuse(saliency_global: Float32, saliency_patches: Float32, locations: Int64) -> Float32:
    """The fused map of one image on the 736 x 480 grid, 0..1.

    Patch maps are written onto zeros at their places, later ones over earlier ones; the global map is brought to the
    same grid by nearest neighbour; the result is their mean. `saliency_global`: float32 [2, 184, 120];
    `saliency_patches`: float32 [K, 2, 128, 128]; `locations`: int64 [K, 2], input pixels.
    """
    canvas = np.zeros((len(spec.CLASSES), *SALIENCY_GRID), np.float32)
    for (row, column), patch in zip((locations // spec.PATCH_CELL).tolist(), saliency_patches, strict=True):
        canvas[:, row : row + spec.PATCH_MAP, column : column + spec.PATCH_MAP] = patch
    return (canvas + enlarge(saliency_global, spec.CELL // spec.PATCH_CELL)) / np.float32(2)


def enlarge(maps: Float32, factor: int) -> Float32:
    """Nearest-neighbour upsampling of [C, rows, columns] by a whole factor."""
    c, rows, columns = maps.shape
    wide = np.broadcast_to(maps[:, :, None, :, None], (c, rows, factor, columns, factor))
    return wide.reshape(c, rows * factor, columns * factor)

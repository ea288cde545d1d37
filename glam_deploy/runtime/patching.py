"""Patch selection, crop and fusion in numpy: the reference for all other implementations.

There are no learned parameters (Liu et al. 2021, section 2). The order of all FP32 additions is fixed, so that another
implementation with the same order (a CUDA kernel) has bit-identical results.
"""

import numpy as np
from numpy.typing import NDArray

from glam_deploy.networks import NetworkSpec, PatchSelection
from glam_deploy.records import Float32, GlobalMaps, Int64, Patches


def contrast_stretch(saliency: Float32) -> tuple[Float32, NDArray[np.bool_]]:
    """Scale the map of each class to 0..1 by its own minimum and maximum.

    `saliency`: float32 [2, rows, columns]. Returns the scaled maps, float32 [2, rows, columns], and whether each class
    is without contrast (maximum == minimum), bool [2]. A class without contrast becomes zeros and does not affect the
    selection; the published code divides by zero there.
    """
    low = saliency.min(axis=(1, 2), keepdims=True)
    span = saliency.max(axis=(1, 2), keepdims=True) - low
    flat = span == 0
    return (saliency - low) / np.where(flat, np.float32(1), span), flat[:, 0, 0]


def window_sums(heat: Float32, side: int) -> Float32:
    """Sums of all windows of `side` x `side` cells, with stride 1.

    float32 [rows, columns] -> float32 [rows - side + 1, columns - side + 1]. All sums are FP32: first the rows of a
    window are added from top to bottom, then the column sums from left to right.
    """
    rows, columns = heat.shape[0] - side + 1, heat.shape[1] - side + 1
    tall = heat[:rows].copy()
    for i in range(1, side):
        tall += heat[i : i + rows]
    sums = tall[:, :columns].copy()
    for j in range(1, side):
        sums += tall[:, j : j + columns]
    return sums


def choose_windows(
    saliency: Float32, count: int, rule: PatchSelection
) -> tuple[list[tuple[int, int]], NDArray[np.bool_]]:
    """Select `count` windows greedily by the largest summed saliency; a selected window is set to zero.

    `saliency`: float32 [2, rows, columns], the global map. In a tie the first window in row-major order is selected;
    without contrast in both classes this is (0, 0). Returns the (row, column) of the upper-left cells, and the flags of
    `contrast_stretch`.
    """
    stretched, flat = contrast_stretch(saliency)
    heat = stretched.sum(axis=0)
    chosen = []
    for _ in range(count):
        sums = window_sums(heat, rule.window)
        row, column = (int(i) for i in np.unravel_index(np.argmax(sums), sums.shape))
        chosen.append((row, column))
        heat[row : row + rule.window, column : column + rule.window] = 0
    return chosen, flat


def cell_to_pixel(cell: tuple[int, int], network: NetworkSpec) -> tuple[int, int]:
    """Upper-left pixel (row, column) of a map cell in the network frame, rounded half to even as in the published code.

    For GLAM this is exactly (16 row, 16 column).
    """
    (rows, columns), (map_rows, map_columns) = network.input_shape, network.map_shape
    return round(cell[0] * rows / map_rows), round(cell[1] * columns / map_columns)


def crop(image: Float32, locations: Int64, side: int) -> Float32:
    """Cut K patches from one standardized image: float32 [rows, columns], int64 [K, 2] -> float32 [K, 1, side, side].

    At the published input size a selected window is always inside the image.
    """
    return np.stack([image[None, r : r + side, c : c + side] for r, c in locations.tolist()])


def select(images: Float32, maps: GlobalMaps, count: int, network: NetworkSpec) -> Patches:
    """Select and cut `count` patches (1 to the number of patch slots of the network) in each image.

    `images`: float32 [N, 1, rows, columns], standardized, network frame.
    """
    choices = [choose_windows(saliency, count, network.patches) for saliency in maps.saliency]
    locations = np.array([[cell_to_pixel(cell, network) for cell in cells] for cells, _ in choices], np.int64)
    side = network.patches.side
    pixels = np.stack([crop(image[0], at, side) for image, at in zip(images, locations, strict=True)])
    return Patches(locations=locations, pixels=pixels, flat=np.stack([flat for _, flat in choices]))


def fuse(saliency_global: Float32, saliency_patches: Float32 | None, locations: Int64, network: NetworkSpec) -> Float32:
    """Compute the fused map of one image on the network's grid (`NetworkSpec.grid_shape`, 736 x 480 for GLAM), 0..1.

    Patch maps are written to their positions in a map of zeros, later ones over earlier ones. The global map is scaled
    to the same grid by nearest neighbour. The fused map is the mean of both. `saliency_global`: float32
    [2, rows, columns]; `saliency_patches`: float32 [K, 2, side, side]; `locations`: int64 [K, 2], (row, column) in
    pixels of the network frame. Returns float32 [2, *grid_shape]. If the network has no maps of patches
    (`saliency_patches` None), the map of a result is the global map, which is returned as it is.
    """
    if saliency_patches is None:
        return saliency_global
    cell = network.grid_cell
    canvas = np.zeros((len(network.classes), *network.grid_shape), np.float32)
    for (row, column), patch in zip((locations // cell).tolist(), saliency_patches, strict=True):
        canvas[:, row : row + patch.shape[1], column : column + patch.shape[2]] = patch
    return (canvas + enlarge(saliency_global, network.cell // cell)) / np.float32(2)


def enlarge(maps: Float32, factor: int) -> Float32:
    """Nearest-neighbour upsampling of [C, rows, columns] by an integer factor."""
    c, rows, columns = maps.shape
    wide = np.broadcast_to(maps[:, :, None, :, None], (c, rows, factor, columns, factor))
    return wide.reshape(c, rows * factor, columns * factor)

"""Saliency maps of one image against the outlines of its lesions: Dice by two definitions, and marks for FROC.

All in the network frame (2944 x 1920 pixels), as the Dice protocol of the papers: the mask is moved there as the image
is, and maps of a coarser grid count as upsampled by nearest neighbour. A map is constant within a cell of its grid, so
that sums over pixels are sums over cells, weighted with the number of mask pixels in each: the same values without maps
of full size.

Soft Dice of a map S (0..1) and a mask M: 2 sum(S M) / (sum(S) + sum(M)), without a threshold (Shen et al. 2019, MLMI).
Dice at a threshold t: the same with S >= t in place of S. Both are 0 if the lesion is outside the network frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from glam_bench.evaluation.labelled import Mask
from glam_deploy.networks import NetworkSpec
from glam_deploy.preprocess import map_to_network
from glam_deploy.records import Float32
from glam_deploy.runtime import patching
from glam_deploy.runtime.result import Result

THRESHOLDS = tuple(n / 100 for n in range(1, 100))
"""Thresholds at which Dice is computed, and of which one is chosen."""
RADIUS = 128
"""Pixels of the network frame: no two marks are closer; 9 mm at the detector pixels of 70 um of the NYU data."""
MOST_MARKS = 32
"""Most marks of an image and class, the highest."""
DIGITS = 6
"""Decimals of stored values."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """One map of one class against the outlines of this class in one image."""

    map: str
    """A name of `maps_of`."""
    label: str
    soft: float
    by_threshold: tuple[float, ...]
    """Dice at each of THRESHOLDS."""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Candidates of one class in the final map of one image, for FROC, and the lesions that they hit."""

    label: str
    lesions: int
    """Lesions: connected components (8 neighbours) of the mask in the source image, also outside the network frame."""
    scores: tuple[float, ...]
    """Saliency at each mark, descending."""
    hits: tuple[int | None, ...]
    """For each mark the number of the lesion that it lies in, from 0; None for a false positive."""


def map_names(network: NetworkSpec) -> tuple[str, ...]:
    """Names of the maps of a network's results, the final map last."""
    return ("global", "local", "fused") if network.has_patch_maps else ("global",)


def maps_of(result: Result) -> dict[str, Float32]:
    """The maps of a result by `map_names`: float32 [C, rows, columns], 0..1, each on the grid of its cells.

    "global" is the global map. Where patches have maps, "local" has them in a map of zeros, and "fused" is the mean of
    both; without, the global map is the final one.
    """
    maps = {"global": result.saliency_global}
    if result.saliency_patches is not None:
        nothing = np.zeros_like(result.saliency_global)
        places, network = result.patch_locations, result.network
        # fused with a global map of zeros, the patch maps are halved, which is exact
        maps["local"] = 2 * patching.fuse(nothing, result.saliency_patches, places, network)
        maps["fused"] = result.source_maps().grid
    return maps


def overlaps(result: Result, masks: Mapping[str, Mask]) -> tuple[Overlap, ...]:
    """Dice of every map for each class with a mask that is not empty. `masks`: class -> mask in the source frame."""
    found = []
    for index, label in enumerate(result.network.classes):
        if label in masks and masks[label].any():
            mask = map_to_network(result.input.placement, masks[label])
            for name, maps in maps_of(result).items():
                soft, by_threshold = dice(maps[index], mask)
                found.append(Overlap(map=name, label=label, soft=soft, by_threshold=by_threshold))
    return tuple(found)


def dice(saliency: Float32, mask: Mask) -> tuple[float, tuple[float, ...]]:
    """Soft Dice, and Dice at each of THRESHOLDS.

    `saliency`: float32 [rows, columns], 0..1, on a grid. `mask`: bool in pixels, a multiple of it along both axes.
    """
    counts = _mask_pixels(mask, saliency.shape)
    pixels = mask.size // saliency.size
    lesion, area = int(mask.sum()), float(saliency.sum(dtype=np.float64)) * pixels
    common = float((saliency.astype(np.float64) * counts).sum())
    soft = 2 * common / (area + lesion) if lesion else 0.0
    return round(soft, DIGITS), _by_threshold(saliency, counts, pixels)


def _by_threshold(saliency: Float32, counts: NDArray[np.int64], pixels: int) -> tuple[float, ...]:
    # number of thresholds that each cell reaches; cells that reach n or more are above the n-th
    reached = np.searchsorted(np.array(THRESHOLDS, np.float32), saliency.ravel(), side="right")
    size = len(THRESHOLDS) + 1
    areas, common = np.bincount(reached, minlength=size) * pixels, np.bincount(reached, counts.ravel(), size)
    above, common_above = (values[::-1].cumsum()[::-1][1:] for values in (areas, common))
    values = 2 * common_above / np.maximum(above + counts.sum(), 1)
    return tuple(round(value, DIGITS) for value in values.tolist())


def _mask_pixels(mask: Mask, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Mask pixels in each cell of a grid of `shape`."""
    (rows, columns), (height, width) = shape, mask.shape
    cells = mask.reshape(rows, height // rows, columns, width // columns)
    return np.asarray(cells.sum((1, 3), dtype=np.int64))


def marks(result: Result, masks: Mapping[str, Mask]) -> tuple[Marks, ...]:
    """Marks of every class in the final map.

    A mark is the highest cell of the map; then all cells within RADIUS of it are set to 0, and so on, as in Liu et al.
    2017 (arXiv 1703.02442). It hits the lesion that the centre of its cell lies in, as in CAMELYON16 (Ehteshami
    Bejnordi et al. 2017); several marks in one lesion count once.
    """
    *_, maps = maps_of(result).values()
    found = []
    for index, label in enumerate(result.network.classes):
        count, numbers = _lesions(result, masks.get(label))
        scores, hits = _highest(maps[index], numbers, result.network.input_shape[0] // maps.shape[1])
        found.append(Marks(label=label, lesions=count, scores=tuple(scores), hits=tuple(hits)))
    return tuple(found)


def _lesions(result: Result, mask: Mask | None) -> tuple[int, NDArray[np.int32] | None]:
    """Number of lesions, and for each pixel of the network frame the number of its lesion from 1, else 0."""
    if mask is None or not mask.any():
        return 0, None
    count, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return count - 1, map_to_network(result.input.placement, np.asarray(numbers, np.int32))


def _highest(saliency: Float32, numbers: NDArray[np.int32] | None, cell: int) -> tuple[list[float], list[int | None]]:
    left, reach = saliency.copy(), RADIUS // cell
    offsets = np.arange(-reach, reach + 1)
    near = offsets[:, None] ** 2 + offsets**2 <= (RADIUS / cell) ** 2
    scores, hits = list[float](), list[int | None]()
    for _ in range(MOST_MARKS):
        row, column = divmod(int(left.argmax()), left.shape[1])
        if left[row, column] <= 0:
            break
        lesion = 0 if numbers is None else int(numbers[row * cell + cell // 2, column * cell + cell // 2])
        scores.append(round(float(left[row, column]), DIGITS))
        hits.append(lesion - 1 if lesion else None)
        top, first = max(0, row - reach), max(0, column - reach)
        part = left[top : row + reach + 1, first : column + reach + 1]
        part[near[top - row + reach :, first - column + reach :][: part.shape[0], : part.shape[1]]] = 0
    return scores, hits

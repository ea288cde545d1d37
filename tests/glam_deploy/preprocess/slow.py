"""The published preprocessing step by step on whole images, with scipy and plain loops: the oracle of the fast one."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


def breast_mask(foreground: np.ndarray, n: int) -> np.ndarray | None:
    """bool [rows, columns]: eroded, largest component, dilated; None if nothing survives."""
    eroded = ndimage.binary_erosion(foreground, iterations=n)
    labels, count = ndimage.label(eroded)
    if not count:
        return None
    sizes = [np.sum(labels == i + 1) for i in range(count)]
    return ndimage.binary_dilation(labels == np.argmax(sizes) + 1, iterations=n)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


@dataclass
class Slow:
    """Numbers in the published counting, and the window before standardization."""

    crop_window: tuple[int, int, int, int]
    distance: int
    rightmost: tuple[tuple[int, int], int]
    bottommost: tuple[int, tuple[int, int]]
    best_center: tuple[int, int]
    window: np.ndarray


def preprocess(
    pixels: np.ndarray, *, faces_left: bool, is_mlo: bool, n: int, buffer: int, size: tuple[int, int]
) -> Slow:
    mask = breast_mask(pixels > 0, n)
    assert mask is not None
    rows, columns = pixels.shape
    top, left, bottom, right = box_of(mask)
    distance = columns - right if faces_left else left
    top, bottom = max(0, top - buffer), min(rows, bottom + buffer)
    left, right = (max(0, left - buffer), right) if faces_left else (left, min(columns, right + buffer))
    crop, mask = pixels[top:bottom, left:right], mask[top:bottom, left:right]
    rightmost, bottommost = _points(mask, faces_left=faces_left)
    crop = crop[:, ::-1] if faces_left else crop
    center = _center(crop > 0, rightmost[1], bottommost[0], is_mlo=is_mlo, size=size)
    window = _window(crop, center, is_mlo=is_mlo, size=size)
    return Slow((top, bottom, left, right), distance, rightmost, bottommost, center, window)


def _points(mask: np.ndarray, *, faces_left: bool):
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    low = ys >= int(height / 3)
    outermost = xs[low].min() if faces_left else xs[low].max()
    at = ys[low & (xs == outermost)]
    lowest = xs[ys == ys.max()]
    x_range = (width - lowest.max(), width - lowest.min()) if faces_left else (lowest.min(), lowest.max())
    column = width - outermost if faces_left else outermost
    return ((at.min(), at.max()), column), (ys.max(), x_range)


def _center(tissue: np.ndarray, rightmost: int, lowest: int, *, is_mlo: bool, size: tuple[int, int]):
    height, width = tissue.shape
    column = rightmost - 1 - size[1] // 2
    if is_mlo:
        if width > size[1]:
            lowest = min(lowest, np.nonzero(tissue[:, width - size[1] :])[0].max())
        return lowest - 1 - size[0] // 2, column
    best = None
    for row in range(-size[0], height + size[0]):
        covered = sum(
            tissue[y, max(0, column - size[1] // 2) : max(0, column + size[1] // 2)].sum()
            for y in range(max(0, row - size[0] // 2), max(0, min(height, row + size[0] // 2)))
        )
        key = (covered, -abs(row - height // 2), -row)
        best = max(best, (key, row)) if best else (key, row)
    return best[1], column


def _window(crop: np.ndarray, center: tuple[int, int], *, is_mlo: bool, size: tuple[int, int]) -> np.ndarray:
    spare_rows, spare_columns = max(0, size[0] - crop.shape[0]), max(0, size[1] - crop.shape[1])
    above = 0 if is_mlo else spare_rows // 2
    crop = np.pad(crop, ((above, spare_rows - above), (0, spare_columns)))
    top = min(max(0, center[0] + above - size[0] // 2), crop.shape[0] - size[0])
    left = min(max(0, center[1] - size[1] // 2), crop.shape[1] - size[1])
    return crop[top : top + size[0], left : left + size[1]]

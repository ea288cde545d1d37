"""Crop around the breast, and position of the network window in it (steps 2 to 5).

The crop is in the upright frame: chest wall on the left. `window` is (rows, columns) of the network frame.
"""

import numpy as np

from glam_deploy.networks import PUBLISHED_FRAME
from glam_deploy.preprocess.foreground import Breast, Mask
from glam_deploy.records import Box, CropFacts, Int64

BUFFER = 50
"""Pixels added around the breast inside the image, except at the chest wall."""


def crop_box(breast: Breast, shape: tuple[int, int], buffer: int = BUFFER) -> Box:
    """Half-open (top, left, bottom, right) of the crop in an image of `shape`, upright frame."""
    top, left, bottom, right = breast.box
    return max(0, top - buffer), left, min(shape[0], bottom + buffer), min(shape[1], right + buffer)


def crop_facts(breast: Breast, crop: Box, *, faces_left: bool) -> CropFacts:
    """The published points of a crop. `breast` and `crop` are in the upright frame."""
    counted = int(faces_left)
    (first_row, last_row), outermost = _rightmost(breast, crop)
    left, right = int(breast.left[-1]) - crop[1], int(breast.right[-1]) - crop[1]
    return CropFacts(
        distance_from_starting_side=breast.box[1],
        rightmost_points=((first_row, last_row), outermost + counted),
        bottommost_points=(breast.box[2] - 1 - crop[0], (left + counted, right - 1 + counted)),
    )


def _rightmost(breast: Breast, crop: Box) -> tuple[tuple[int, int], int]:
    """((first row, last row), column) in the crop of the outermost points, below the upper third of its height."""
    start = crop[0] + int((crop[2] - crop[0]) / 3)
    skipped = max(0, start - breast.top)
    reach = breast.right[skipped:]
    rows = np.flatnonzero(reach == reach.max()) + breast.top + skipped - crop[0]
    return (int(rows[0]), int(rows[-1])), int(reach.max()) - 1 - crop[1]


def best_center(
    tissue: Mask, facts: CropFacts, *, is_mlo: bool, window: tuple[int, int] = PUBLISHED_FRAME
) -> tuple[int, int]:
    """(row, column) of the published best centre, relative to the crop; it may be outside the crop.

    `tissue`: bool [rows, columns] of the crop, upright, all pixels > 0, not only the breast. The window of a centre c
    spans [c - window // 2, c + window - window // 2) and ends one pixel before the point that determines it.
    """
    right = facts.rightmost_points[1] - 1
    bottom = _mlo_bottom(tissue, facts, window) if is_mlo else _cc_bottom(tissue, right, window)
    return bottom - window[0] + window[0] // 2, right - window[1] + window[1] // 2


def _mlo_bottom(tissue: Mask, facts: CropFacts, window: tuple[int, int]) -> int:
    """End row of the window of an MLO view, whose lower right corner is given.

    In a crop wider than the window, the lowest point may be at the chest wall, outside the window; then the lowest
    foreground in the last `window[1]` columns of the crop is used.
    """
    lowest = facts.bottommost_points[0]
    if tissue.shape[1] > window[1]:
        lowest = min(lowest, int(np.flatnonzero(tissue[:, -window[1] :].any(axis=1))[-1]))
    return lowest - 1


def _cc_bottom(tissue: Mask, right: int, window: tuple[int, int]) -> int:
    """End row of the window of a CC view: the one with most foreground, given its right end.

    Of several, the one with its centre nearest to the middle row of the crop, and of two equally near the upper one.
    """
    per_row = np.count_nonzero(tissue[:, max(0, right - window[1]) : max(0, right)], axis=1)
    tops = np.arange(-window[0], len(per_row) + 1)
    counts = _window_counts(per_row, tops, window[0])
    best = tops[counts == counts.max()]
    distance = np.abs(best + window[0] // 2 - len(per_row) // 2)
    return int(best[np.argmin(distance)]) + window[0]


def _window_counts(per_row: Int64, tops: Int64, height: int) -> Int64:
    """Number of foreground pixels in the rows [top, top + height) of each top; rows outside the crop count 0."""
    before = np.concatenate([[0], np.cumsum(per_row)])
    return np.asarray(before[np.clip(tops + height, 0, len(per_row))] - before[np.clip(tops, 0, len(per_row))])


def window_shift(
    center: tuple[int, int], crop_shape: tuple[int, int], *, is_mlo: bool, window: tuple[int, int] = PUBLISHED_FRAME
) -> tuple[int, int]:
    """Position (row, column) of the first window pixel in the crop; negative if the window starts in padding.

    Along an axis where the crop is larger than the window, the window is shifted inside the crop. Else the whole crop
    is shown: at the left, at the top in an MLO view, and in the middle in a CC view, with an odd row of padding below.
    """
    spare = window[0] - crop_shape[0]
    row = _inside(center[0] - window[0] // 2, -spare) if spare < 0 else 0 if is_mlo else -(spare // 2)
    return row, _inside(center[1] - window[1] // 2, crop_shape[1] - window[1])


def _inside(start: int, last: int) -> int:
    return max(0, min(start, last))

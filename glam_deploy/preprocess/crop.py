"""The crop around the breast and the points that the window hangs on (steps 2 and 3).

Everything is in the upright frame: the source image, mirrored where the breast faces left, so that the chest wall is
on the left.
"""

import numpy as np

from glam_deploy.preprocess.foreground import Breast
from glam_deploy.records import Box, CropFacts

BUFFER = 50
"""Pixels added around the breast where the image has them, except at the chest wall."""


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
    """((first row, last row), column) in the crop, of the outermost column from a third of its height downwards."""
    start = crop[0] + int((crop[2] - crop[0]) / 3)
    skipped = max(0, start - breast.top)
    reach = breast.right[skipped:]
    rows = np.flatnonzero(reach == reach.max()) + breast.top + skipped - crop[0]
    return (int(rows[0]), int(rows[-1])), int(reach.max()) - 1 - crop[1]

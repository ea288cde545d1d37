"""Detection of the breast: erosion, largest component, dilation (step 1).

`n` erosions with the 4-neighbour cross keep the pixels whose city-block distance to the background exceeds `n`; one
distance transform finds them. The largest component is found among the row runs of these pixels. Of its dilation only
the extent of each row is needed: `n` pixels in the row itself, one fewer for every row further away. The result is
exact.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import InputError
from glam_deploy.records import Box, Int64, Pixels

Mask = NDArray[np.bool_]

EROSIONS = 100
"""Erosions and dilations of the published preprocessing."""


@dataclass(frozen=True, kw_only=True)
class Breast:
    """Extent of the breast in each of its rows, which are contiguous."""

    top: int
    """First row."""
    left: Int64
    """int64 [rows]: first column of each row."""
    right: Int64
    """int64 [rows]: last column of each row, plus one."""

    @property
    def box(self) -> Box:
        """Half-open bounding box."""
        return self.top, int(self.left.min()), self.top + len(self.left), int(self.right.max())

    def mirrored(self, width: int) -> "Breast":
        """The same breast in an image of `width` columns, mirrored left to right."""
        return Breast(top=self.top, left=width - self.right, right=width - self.left)


def bordered_mask(pixels: Pixels) -> Mask:
    """Mask of the pixels above 0: bool [rows + 2, columns + 2], source frame, with a border of background.

    The border makes the outside of the image count as background, as the published erosion does.
    """
    rows, columns = pixels.shape
    mask = np.zeros((rows + 2, columns + 2), np.bool_)
    np.greater(pixels, 0, out=mask[1:-1, 1:-1])
    return mask


def find_breast(bordered: Mask, n: int = EROSIONS) -> Breast:
    """The largest 4-connected component of the `n` times eroded foreground, dilated `n` times (n <= 254).

    `bordered`: bool [rows + 2, columns + 2] from `bordered_mask`. Of components of equal size, the one whose first
    pixel is first in row-major order is selected. Raises InputError if no pixel remains after the erosion.
    """
    core = _core(bordered, n)
    width = bordered.shape[1]
    edges = np.flatnonzero(core[1:] != core[:-1]) + 1
    if not len(edges):
        raise InputError(
            f"No part of the foreground (pixels > 0) remains after {n} erosions: it is nowhere thicker than {2 * n} "
            "pixels. Expected a whole mammogram at the resolution of the detector; check the file."
        )
    starts, ends = edges[::2], edges[1::2]
    keep = _largest_component(starts, ends, width)
    return _dilate(starts[keep], ends[keep], bordered.shape, n)


def _core(bordered: Mask, n: int) -> Mask:
    """Foreground after `n` erosions: bool [(rows + 2) * (columns + 2)]."""
    # 8-bit distances stop at 255, which is beyond any n in use, and are several times faster than float32.
    distance = cv2.distanceTransform(bordered.view(np.uint8), cv2.DIST_L1, 3, dstType=cv2.CV_8U)
    return np.greater(distance, n).ravel()


def _largest_component(starts: Int64, ends: Int64, width: int) -> Mask:
    """Mask of the runs in the component with most pixels; runs are half-open, in flat indices and in order."""
    labels = _labels(len(starts), *_touching(starts, ends, width))
    sizes = np.bincount(labels, weights=ends - starts)
    return np.asarray(labels == np.argmax(sizes))


def _touching(starts: Int64, ends: Int64, width: int) -> tuple[Int64, Int64]:
    """Pairs (upper, lower) of runs in neighbouring rows that share a column."""
    first = np.searchsorted(ends, starts + width, "right")
    count = np.maximum(np.searchsorted(starts, ends + width, "left") - first, 0)
    upper = np.repeat(np.arange(len(starts)), count)
    offset = np.arange(len(upper)) - np.repeat(np.cumsum(count) - count, count)
    return upper, np.repeat(first, count) + offset


def _labels(count: int, upper: Int64, lower: Int64) -> Int64:
    """For each run, the lowest index in its component.

    The lowest label is propagated over every pair, and then along chains of labels, whose length halves each time.
    """
    labels = np.arange(count)
    while True:
        low = np.minimum(labels[upper], labels[lower])
        spread = labels.copy()
        for ends in (upper, lower, labels[upper], labels[lower]):
            np.minimum.at(spread, ends, low)
        spread = spread[spread]
        if np.array_equal(spread, labels):
            return labels
        labels = spread


def _dilate(starts: Int64, ends: Int64, bordered_shape: tuple[int, ...], n: int) -> Breast:
    """Extents of the dilated rows of a component, given by its runs, in the frame without the border."""
    height, width = bordered_shape[0] - 2, bordered_shape[1] - 2
    row, column = np.divmod(starts, width + 2)
    first_of_row = np.flatnonzero(np.diff(row, prepend=-1))
    left = np.minimum.reduceat(column, first_of_row) - 1
    right = np.maximum.reduceat(column + ends - starts, first_of_row) - 1
    top = int(row[0]) - 1 - n
    inside = slice(max(0, -top), height - top)
    return Breast(
        top=max(0, top),
        left=np.maximum(-_cone_maximum(-left, n), 0)[inside],
        right=np.minimum(_cone_maximum(right, n), width)[inside],
    )


def _cone_maximum(extent: Int64, n: int) -> Int64:
    """max over |r - y| <= n of extent[r] + n - |r - y|, for y from n before the first row to n after the last."""
    nowhere = np.iinfo(np.int64).min // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(extent, 2 * n, constant_values=nowhere), 2 * n + 1)
    return np.asarray((windows + (n - np.abs(np.arange(-n, n + 1)))).max(axis=1))

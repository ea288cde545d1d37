"""Samples of a view: all pixels that its diagnosis uses, a few per cent of the image. A GPU can gather them too."""

from dataclasses import dataclass

import numpy as np

from glam_deploy.preprocess.foreground import Breast
from glam_deploy.records import Int64, Pixels

GRID = 512
"""Approximate number of sampling points along the longer side of a grid."""
LINE_STEP = 32
"""Pixel step along the sampled lines."""
OUTLINE_ROWS = 300
"""Approximate number of rows of `Samples.outline`."""
BESIDE_STEP = 8
"""Pixel step of `Samples.beside`."""
BEYOND = 40
"""Largest distance in pixels of the end of the foreground from the opened outline."""
DEPTH = 90
"""Depth in pixels, from the outermost pixel inwards, of the measurements at the outline; deeper is breast structure."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Sampled pixels of a view, in the upright frame (chest wall on the left), in the dtype of the image."""

    grid: Pixels
    """[rows, columns] of the bounding box of the breast, each at steps of `grid_step`."""
    row_lines: Pixels
    """[rows of the image, n]: every `LINE_STEP`-th column of the bounding box."""
    column_lines: Pixels
    """[columns of the image, n], C-contiguous: every `LINE_STEP`-th row of the bounding box."""
    first_row: Pixels
    last_row: Pixels
    first_column: Pixels
    last_column: Pixels
    outline: Pixels
    """[n, BEYOND + DEPTH + 2]: of the rows `outline_rows`, the pixels from BEYOND right of the breast inwards.

    Column i is right[row] + BEYOND - i; beyond the right edge the value is 0, beyond the left edge that of column 0.
    """
    whole: Pixels
    """The image at steps of `grid_step` of its shape along both axes."""
    beside: Pixels
    """The rows of the bounding box and all columns, at steps of `BESIDE_STEP`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        return len(self.first_column), len(self.first_row)

    @property
    def border(self) -> Pixels:
        """The pixels of the three sides away from the chest wall."""
        return np.concatenate([self.first_row, self.last_row, self.last_column])


def grid_step(rows: int, columns: int) -> int:
    """Step of a grid with about `GRID` points along the longer side."""
    return max(1, max(rows, columns) // GRID)


def outline_rows(breast: Breast) -> Int64:
    """int64 [n]: rows of the outline that are sampled, counted from the first row of the breast."""
    rows = len(breast.right)
    return np.arange(0, rows, max(1, rows // OUTLINE_ROWS))


def take(pixels: Pixels, breast: Breast) -> Samples:
    """The samples of an image; `pixels`: [rows, columns], and `breast` as found in them, both in the upright frame."""
    top, left, bottom, right = breast.box
    step, whole = grid_step(bottom - top, right - left), grid_step(*pixels.shape)
    return Samples(
        grid=np.ascontiguousarray(pixels[top:bottom:step, left:right:step]),
        row_lines=np.ascontiguousarray(pixels[:, left:right:LINE_STEP]),
        column_lines=np.ascontiguousarray(pixels[top:bottom:LINE_STEP].T),
        first_row=pixels[0],
        last_row=pixels[-1],
        first_column=pixels[:, 0],
        last_column=pixels[:, -1],
        outline=_outline(pixels, breast),
        whole=np.ascontiguousarray(pixels[::whole, ::whole]),
        beside=np.ascontiguousarray(pixels[top:bottom:BESIDE_STEP, ::BESIDE_STEP]),
    )


def _outline(pixels: Pixels, breast: Breast) -> Pixels:
    rows, columns = outline_rows(breast), pixels.shape[1]
    column = breast.right[rows, None] + BEYOND - np.arange(BEYOND + DEPTH + 2)
    values: Pixels = pixels[rows[:, None] + breast.top, np.clip(column, 0, columns - 1)]
    values[column >= columns] = 0
    return values

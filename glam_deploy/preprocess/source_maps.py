"""Maps as the source image's own grid shows them, made only where somebody looks: a lesion fills little of a view."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.preprocess.frame import Seen, box_to_source, seen
from glam_deploy.records import Box, Float32, Placement

Indices = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class SourceMaps:
    """Maps of the network frame, in the source frame. Source pixels that the network never saw are 0."""

    grid: Float32
    """float32 [C, rows, columns], network frame: each value stands for a square of `cell` x `cell` pixels."""
    cell: int
    placement: Placement

    @classmethod
    def of(cls, maps: Float32) -> "SourceMaps":
        """Maps that lie in the source frame already: float32 [C, rows, columns]."""
        rows, columns = maps.shape[1:]
        here = Placement(
            source_shape=(rows, columns),
            crop_window=(0, rows, 0, columns),
            mirrored=False,
            row_shift=0,
            column_shift=0,
            best_center=None,
            network_shape=(rows, columns),
        )
        return cls(grid=maps, cell=1, placement=here)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, rows, columns) of the whole."""
        return len(self.grid), *self.placement.source_shape

    def whole(self) -> Float32:
        """All of it: float32 of `shape`."""
        return self._spread(self.grid)

    def above(self, thresholds: Sequence[float]) -> NDArray[np.bool_]:
        """Where each map exceeds its threshold: bool of `shape`."""
        return self._spread(self.grid > np.array(thresholds, np.float32)[:, None, None])

    def extent(self, n: int, threshold: float) -> Box | None:
        """A box, half-open (top, left, bottom, right), that holds all that exceeds `threshold` in the n-th map.

        None where nothing does. Its sides are no more than a cell from what they hold.
        """
        rows, columns = (np.flatnonzero((self.grid[n] > np.float32(threshold)).any(axis=axis)) for axis in (1, 0))
        if not rows.size:
            return None
        cells = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
        top, left, bottom, right = (self.cell * edge for edge in cells)
        return box_to_source(self.placement, (top, left, bottom, right))

    def cut(self, n: int, box: Box) -> Float32:
        """The n-th map in a part of the source image that the network saw: float32 [rows, columns] of the box."""
        top, left, bottom, right = box
        part: Float32 = self._at(self.grid[n : n + 1], np.arange(top, bottom), np.arange(left, right))[0]
        return part

    def sample(self, shape: tuple[int, int]) -> Float32:
        """On a smaller picture of the whole source image, by nearest neighbour: float32 [C, *shape].

        What `whole` has at the centre of each of the picture's pixels, without making it.
        """
        (rows, columns), (top, left, bottom, right) = self.placement.source_shape, self._seen.source
        row_at, down = _samples(shape[0], rows, top, bottom)
        column_at, across = _samples(shape[1], columns, left, right)
        out = np.zeros((len(self.grid), *shape), np.float32)
        out[:, row_at, column_at] = self._at(self.grid, down, across)
        return out

    @cached_property
    def _seen(self) -> Seen:
        return seen(self.placement)

    def _spread(self, grid: NDArray[Any]) -> NDArray[Any]:
        top, left, bottom, right = self._seen.source
        out = np.zeros(self.shape, grid.dtype)
        out[:, top:bottom, left:right] = self._at(grid, np.arange(top, bottom), np.arange(left, right))
        return out

    def _at(self, grid: NDArray[Any], rows: Indices, columns: Indices) -> NDArray[Any]:
        """`grid` (as `self.grid`) at rows and columns of the source that the network saw."""
        part = self._seen
        down = part.network[0] + rows - part.source[0]
        across = columns - part.source[1]
        across = part.network[3] - 1 - across if part.mirrored else part.network[1] + across
        # columns first, while there are few rows
        return grid.take(across // self.cell, axis=2).take(down // self.cell, axis=1)


def _samples(count: int, length: int, start: int, end: int) -> tuple[slice, Indices]:
    """Which of `count` pixels spread over `length` have their centre in start..end, and where those lie."""
    positions = (2 * np.arange(count) + 1) * length // (2 * count)
    first, last = np.searchsorted(positions, (start, end))
    return slice(first, last), positions[first:last]

"""Conversion of positions, boxes and maps between network frame and source frame; no other module converts them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import UsageError
from glam_deploy.records import Box, Float32, Pixels, Placement

Indices = NDArray[np.intp]
Span = tuple[int, int]
"""Start and end of a box along one axis, half-open."""
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The part of a source image inside the network frame, as boxes of equal size in both frames."""

    network: Box
    source: Box
    rows_reversed: bool
    columns_reversed: bool

    def read(self, source: Pixels) -> Pixels:
        """The part of an array [..., rows, columns] in the source frame, oriented as in the network frame; no copy."""
        part = source[..., self.source[0] : self.source[2], self.source[1] : self.source[3]]
        return part[..., :: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


def seen(placement: Placement) -> Seen:
    """The part of the crop inside the network frame."""
    window = placement.network_shape
    top, bottom, left, right = placement.crop_window
    row, end_row = _overlap(placement.row_shift, window[0], bottom - top)
    column, end_column = _overlap(placement.column_shift, window[1], right - left)
    dr, dc = placement.row_shift, placement.column_shift
    rows_reversed, columns_reversed = placement.half_turn, placement.mirrored != placement.half_turn
    rows = (bottom - end_row, bottom - row) if rows_reversed else (top + row, top + end_row)
    columns = (right - end_column, right - column) if columns_reversed else (left + column, left + end_column)
    return Seen(
        network=(row - dr, column - dc, end_row - dr, end_column - dc),
        source=(rows[0], columns[0], rows[1], columns[1]),
        rows_reversed=rows_reversed,
        columns_reversed=columns_reversed,
    )


def half_turned(placement: Placement) -> Placement:
    """The placement of the same window in the source image turned by 180 degrees."""
    (rows, columns), (top, bottom, left, right) = placement.source_shape, placement.crop_window
    turned = rows - bottom, rows - top, columns - right, columns - left
    return replace(placement, crop_window=turned, half_turn=not placement.half_turn)


def _overlap(shift: int, length: int, size: int) -> tuple[int, int]:
    return max(0, shift), min(size, shift + length)


def map_to_source(placement: Placement, maps: Float32) -> Float32:
    """Maps of the network frame in the pixel grid of the source image.

    `maps`: float32 [C, rows, columns], network frame. Returns float32 [C, rows, columns], source frame; source pixels
    outside the network frame are 0. Raises UsageError for maps of another shape.
    """
    if maps.ndim != 3 or maps.shape[1:] != placement.network_shape:
        rows, columns = placement.network_shape
        raise UsageError(
            f"The maps have shape {maps.shape}; expected [C, {rows}, {columns}] in the network frame. Enlarge them to "
            "the input size of the network first."
        )
    part = seen(placement)
    top, left, bottom, right = part.network
    out = np.zeros((maps.shape[0], *placement.source_shape), np.float32)
    part.read(out)[...] = maps[:, top:bottom, left:right]
    return out


def map_to_network(placement: Placement, pixels: NDArray[T]) -> NDArray[T]:
    """A map or mask of the source image in the network frame: [*network_shape], padding 0, of the same type.

    `pixels`: [rows, columns] of the source image. Raises UsageError for another shape.
    """
    if pixels.shape != placement.source_shape:
        raise UsageError(
            f"The map has shape {pixels.shape}; expected that of the source image, {placement.source_shape}"
        )
    part = seen(placement)
    top, left, bottom, right = part.network
    out = np.zeros(placement.network_shape, pixels.dtype)
    out[top:bottom, left:right] = part.read(pixels)
    return out


def box_to_source(placement: Placement, box: Box) -> Box | None:
    """The part of a box inside the source image, half-open (top, left, bottom, right), source frame.

    `box` is in the network frame. Padding and pixels outside the frame are cut off; None if nothing remains.
    """
    part = seen(placement)
    top, left = max(box[0], part.network[0]), max(box[1], part.network[1])
    bottom, right = min(box[2], part.network[2]), min(box[3], part.network[3])
    if top >= bottom or left >= right:
        return None
    return _move((top, left, bottom, right), part.network, part.source, part)


def point_to_source(placement: Placement, point: tuple[int, int]) -> tuple[int, int] | None:
    """The source pixel (row, column) of a pixel of the network frame; None for padding or outside the frame."""
    box = box_to_source(placement, (*point, point[0] + 1, point[1] + 1))
    return None if box is None else box[:2]


def point_to_network(placement: Placement, point: tuple[int, int]) -> tuple[int, int] | None:
    """The pixel (row, column) of the network frame of a source pixel; None if it is outside the network frame."""
    part, (row, column) = seen(placement), point
    top, left, bottom, right = part.source
    if not (top <= row < bottom and left <= column < right):
        return None
    return _move((row, column, row + 1, column + 1), part.source, part.network, part)[:2]


def _move(box: Box, origin: Box, target: Box, part: Seen) -> Box:
    """A box inside `origin`, moved to the same position in `target`; reversed axes count from the other side."""
    top, bottom = _move_along(box[::2], origin[::2], target[::2], part.rows_reversed)
    left, right = _move_along(box[1::2], origin[1::2], target[1::2], part.columns_reversed)
    return top, left, bottom, right


def _move_along(span: Span, origin: Span, target: Span, is_reversed: bool) -> Span:
    start, end = span[0] - origin[0], span[1] - origin[0]
    return (target[1] - end, target[1] - start) if is_reversed else (target[0] + start, target[0] + end)


@dataclass(frozen=True, kw_only=True)
class SourceMaps:
    """Maps of the network frame, readable in the source frame. Source pixels outside the network frame are 0."""

    grid: Float32
    """float32 [C, rows, columns], network frame: each value applies to a square of `cell` x `cell` pixels."""
    cell: int
    """Side of a square in pixels."""
    placement: Placement

    @classmethod
    def of(cls, maps: Float32) -> "SourceMaps":
        """Maps that are already in the source frame: float32 [C, rows, columns]."""
        rows, columns = maps.shape[1:]
        identity = Placement(
            source_shape=(rows, columns),
            crop_window=(0, rows, 0, columns),
            mirrored=False,
            row_shift=0,
            column_shift=0,
            best_center=None,
            network_shape=(rows, columns),
        )
        return cls(grid=maps, cell=1, placement=identity)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, rows, columns) in the source frame."""
        return len(self.grid), *self.placement.source_shape

    def whole(self) -> Float32:
        """All maps in the source frame: float32 of `shape`."""
        return self._spread(self.grid)

    def above(self, thresholds: Sequence[float]) -> NDArray[np.bool_]:
        """Masks of the pixels above the threshold of each map: bool of `shape`."""
        return self._spread(self.grid > np.array(thresholds, np.float32)[:, None, None])

    def extent(self, n: int, threshold: float) -> Box | None:
        """A half-open box (top, left, bottom, right) around all pixels above `threshold` in the n-th map.

        None if there are none. Each side is less than one cell from the nearest such pixel.
        """
        rows, columns = (np.flatnonzero((self.grid[n] > np.float32(threshold)).any(axis=axis)) for axis in (1, 0))
        if not rows.size:
            return None
        cells = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
        top, left, bottom, right = (self.cell * edge for edge in cells)
        return box_to_source(self.placement, (top, left, bottom, right))

    def cut(self, n: int, box: Box) -> Float32:
        """The n-th map in a box of the source image inside the network frame: float32 [rows, columns] of the box."""
        top, left, bottom, right = box
        part: Float32 = self._at(self.grid[n : n + 1], np.arange(top, bottom), np.arange(left, right))[0]
        return part

    def sample(self, shape: tuple[int, int]) -> Float32:
        """Maps reduced to `shape` (rows, columns) by nearest neighbour: float32 [C, *shape].

        The values of `whole` at the centre of each reduced pixel, without calculating `whole`.
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
        """`grid` (like `self.grid`) at rows and columns of the source image, all inside the network frame."""
        part = self._seen
        down, across = rows - part.source[0], columns - part.source[1]
        down = part.network[2] - 1 - down if part.rows_reversed else part.network[0] + down
        across = part.network[3] - 1 - across if part.columns_reversed else part.network[1] + across
        # columns first, while the number of rows is small
        return grid.take(across // self.cell, axis=2).take(down // self.cell, axis=1)


def _samples(count: int, length: int, start: int, end: int) -> tuple[slice, Indices]:
    """Of `count` pixels spread over `length`: those with their centre in start..end, and positions of the centres."""
    positions = (2 * np.arange(count) + 1) * length // (2 * count)
    first, last = np.searchsorted(positions, (start, end))
    return slice(first, last), positions[first:last]

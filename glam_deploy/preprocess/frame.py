"""Between the network frame and the source frame: the only place that knows how one turns into the other.

The forward cut (`seen`, used by `prepare`) and the way back read the same two rectangles, so they cannot drift apart.
"""

from dataclasses import dataclass

import numpy as np

from glam_deploy.errors import UsageError
from glam_deploy.records import Box, Float32, Pixels, Placement


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The part of a source image that the network sees, in both frames; the two boxes have one size."""

    network: Box
    source: Box
    mirrored: bool

    def read(self, source: Pixels) -> Pixels:
        """A view of [..., rows, columns] in the source frame, as it lies in the network frame."""
        part = source[..., self.source[0] : self.source[2], self.source[1] : self.source[3]]
        return part[..., ::-1] if self.mirrored else part


def seen(placement: Placement) -> Seen:
    """What of the crop lies in the network frame."""
    window = placement.network_shape
    top, bottom, left, right = placement.crop_window
    row, end_row = _overlap(placement.row_shift, window[0], bottom - top)
    column, end_column = _overlap(placement.column_shift, window[1], right - left)
    dr, dc = placement.row_shift, placement.column_shift
    columns = (right - end_column, right - column) if placement.mirrored else (left + column, left + end_column)
    return Seen(
        network=(row - dr, column - dc, end_row - dr, end_column - dc),
        source=(top + row, columns[0], top + end_row, columns[1]),
        mirrored=placement.mirrored,
    )


def _overlap(shift: int, length: int, size: int) -> tuple[int, int]:
    return max(0, shift), min(size, shift + length)


def map_to_source(placement: Placement, maps: Float32) -> Float32:
    """Maps of the network frame on the source image's own grid, pixel for pixel.

    `maps`: float32 [C, rows, columns], network frame. Returns float32 [C, rows, columns], source frame; source pixels
    that the network never saw are 0. Raises UsageError for maps of another shape.
    """
    if maps.ndim != 3 or maps.shape[1:] != placement.network_shape:
        rows, columns = placement.network_shape
        raise UsageError(
            f"Maps of shape {maps.shape} do not lie in the network frame; expected [C, {rows}, {columns}]. "
            "Enlarge them to the network's input size first."
        )
    part = seen(placement)
    top, left, bottom, right = part.network
    out = np.zeros((maps.shape[0], *placement.source_shape), np.float32)
    part.read(out)[...] = maps[:, top:bottom, left:right]
    return out


def box_to_source(placement: Placement, box: Box) -> Box | None:
    """The part of a box that lies in the source image, half-open (top, left, bottom, right), source frame.

    `box` is in the network frame. What lies in the padding, or outside the frame, is cut off; None if nothing is left.
    """
    part = seen(placement)
    top, left = max(box[0], part.network[0]), max(box[1], part.network[1])
    bottom, right = min(box[2], part.network[2]), min(box[3], part.network[3])
    if top >= bottom or left >= right:
        return None
    return _move((top, left, bottom, right), part.network, part.source, mirrored=part.mirrored)


def point_to_source(placement: Placement, point: tuple[int, int]) -> tuple[int, int] | None:
    """The source pixel (row, column) that a pixel of the network frame shows; None for padding or outside."""
    box = box_to_source(placement, (*point, point[0] + 1, point[1] + 1))
    return None if box is None else box[:2]


def point_to_network(placement: Placement, point: tuple[int, int]) -> tuple[int, int] | None:
    """The pixel (row, column) of the network frame that shows a source pixel; None if the network never saw it."""
    part, (row, column) = seen(placement), point
    top, left, bottom, right = part.source
    if not (top <= row < bottom and left <= column < right):
        return None
    return _move((row, column, row + 1, column + 1), part.source, part.network, mirrored=part.mirrored)[:2]


def _move(box: Box, origin: Box, target: Box, *, mirrored: bool) -> Box:
    """A box inside `origin`, at the same place of `target`; mirrored, it keeps its distance from the other side."""
    down = target[0] - origin[0]
    if mirrored:
        left, right = target[3] - (box[3] - origin[1]), target[3] - (box[1] - origin[1])
    else:
        left, right = box[1] + target[1] - origin[1], box[3] + target[1] - origin[1]
    return box[0] + down, left, box[2] + down, right

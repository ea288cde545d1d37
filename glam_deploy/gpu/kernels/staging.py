"""Staging areas for the upload of raw views: per image a header, followed by pixels.

The pixels are either those inside the network's window, for an image that was placed on the host, or the whole source
image, which the GPU places. Areas are stored consecutively at equal distances. Values are little-endian; rows start at
multiples of 16 bytes. The kernels read the areas as staging.cuh describes them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import UsageError
from glam_deploy.gpu.kernels.geometry import HEADER_BYTES, PIXEL_FLOAT32, PIXEL_UINT8, PIXEL_UINT16
from glam_deploy.records import Pixels

HEADER = np.dtype(
    {
        "names": ["rows", "columns", "row", "column", "mirrored", "kind", "whole", "is_mlo"],
        "formats": ["<i4"] * 8,
        "itemsize": HEADER_BYTES,
    }
)
"""`rows`, `columns`: number of pixels; `row`, `column`: position of their upper-left corner in the network frame;
`mirrored`: 0 or 1; `kind`: pixel type, see STORED and WHOLE; `whole`: 1 for a whole image, whose `row` and `column` are
not used; `is_mlo`: 1 for a whole image of an MLO view."""

STORED: Mapping[str, tuple[int, np.dtype[Any]]] = MappingProxyType(
    {
        "uint8": (PIXEL_UINT16, np.dtype("<u2")),
        "uint16": (PIXEL_UINT16, np.dtype("<u2")),
        "float32": (PIXEL_FLOAT32, np.dtype("<f4")),
    }
)
"""dtype of the pixels -> `kind` of the header, and dtype in the area. uint8 is converted to uint16."""

WHOLE: Mapping[str, tuple[int, np.dtype[Any]]] = MappingProxyType({**STORED, "uint8": (PIXEL_UINT8, np.dtype("u1"))})
"""The same for whole images, which are not converted."""

LARGEST_SIDE = 8192
LARGEST_PIXELS = 30_000_000
LARGEST_BYTES = HEADER_BYTES + 2 * LARGEST_PIXELS
"""Limits of whole images: rows and columns, number of pixels, and bytes of the area. The largest images of detectors
have 5928 x 4728 pixels of 16 bits."""


def largest_area(network_shape: tuple[int, int]) -> int:
    """Bytes of the largest possible area: float32 pixels in the complete network frame; 22,609,984 for GLAM."""
    return area_bytes(*network_shape, "float32")


def area_bytes(rows: int, columns: int, dtype: str) -> int:
    """Bytes of an area with `rows` x `columns` pixels of a dtype in STORED; a multiple of 16."""
    return HEADER_BYTES + rows * _pitch(columns, STORED[dtype][1])


def pack(
    area: NDArray[np.uint8],
    pixels: Pixels,
    *,
    row: int,
    column: int,
    mirrored: bool,
    network_shape: tuple[int, int],
) -> int:
    """Write one image to its area; returns the number of bytes used from the start of the area.

    `area`: uint8 [bytes], contiguous, with 16-byte alignment. `pixels`: uint8, uint16 or float32 [rows, columns], the
    part of the image inside the network's window, in the source frame. `row`, `column`: its upper-left corner in the
    network frame of `network_shape`. `mirrored`: whether the columns are reversed in the network frame. Raises
    UsageError for pixels of another dtype, pixels outside the network frame, and pixels that do not fit in the area.
    """
    rows, columns = pixels.shape
    _check(pixels, row, column, len(area), network_shape)
    kind, dtype = STORED[pixels.dtype.name]
    used = area_bytes(rows, columns, pixels.dtype.name)
    area[:HEADER_BYTES].view(HEADER)[0] = (rows, columns, row, column, mirrored, kind, 0, 0)
    lines = area[HEADER_BYTES:used].reshape(rows, _pitch(columns, dtype)).view(dtype)
    lines[:, :columns] = pixels
    return used


def fits(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether the GPU can place a whole image of this shape and dtype; others are placed on the host."""
    stored = dtype.name in WHOLE and dtype.isnative
    if len(shape) != 2 or not stored or not all(1 <= side <= LARGEST_SIDE for side in shape):
        return False
    return shape[0] * shape[1] <= LARGEST_PIXELS and whole_bytes(*shape, dtype) <= LARGEST_BYTES


def whole_bytes(rows: int, columns: int, dtype: np.dtype[Any]) -> int:
    """Bytes of an area with a whole image of `rows` x `columns` pixels of a dtype in WHOLE; a multiple of 16."""
    return HEADER_BYTES + rows * _pitch(columns, WHOLE[dtype.name][1])


def whole_lines(area: NDArray[np.uint8], shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The pixels of a whole image in its area: a writable view [rows, columns] of `dtype`, rows apart.

    `area`: uint8 [bytes], contiguous, with 16-byte alignment. Raises UsageError for an image that does not fit.
    """
    if not fits(shape, dtype) or whole_bytes(*shape, dtype) > len(area):
        raise UsageError(
            f"A whole image of shape {shape} and type {dtype} does not fit into a staging area of {len(area)} bytes. "
            f"Expected at most {LARGEST_SIDE} rows and columns, {LARGEST_PIXELS} pixels and {LARGEST_BYTES} bytes of "
            f"{', '.join(WHOLE)}. Place it on the host."
        )
    (rows, columns), stored = shape, WHOLE[dtype.name][1]
    used = area[HEADER_BYTES : whole_bytes(rows, columns, dtype)]
    return used.reshape(rows, _pitch(columns, stored)).view(stored)[:, :columns]


def pack_whole(area: NDArray[np.uint8], pixels: Pixels, *, mirrored: bool, is_mlo: bool) -> int:
    """Write a whole image to its area; returns the number of bytes used from the start of the area.

    `area`: as for `whole_lines`. `pixels`: uint8, uint16 or float32 [rows, columns], source frame; pixels that are
    already in the area (the view of `whole_lines`) are not copied. `mirrored`: whether the columns are reversed in the
    network frame. `is_mlo`: whether it is an MLO view. Raises UsageError for an image that does not fit.
    """
    rows, columns = pixels.shape
    lines = whole_lines(area, (rows, columns), pixels.dtype)
    area[:HEADER_BYTES].view(HEADER)[0] = (rows, columns, 0, 0, mirrored, WHOLE[pixels.dtype.name][0], 1, is_mlo)
    if pixels.ctypes.data != lines.ctypes.data or pixels.strides != lines.strides:
        lines[...] = pixels
    return whole_bytes(rows, columns, pixels.dtype)


def _pitch(columns: int, dtype: np.dtype[Any]) -> int:
    return -(-columns * dtype.itemsize // 16) * 16


def _check(pixels: Pixels, row: int, column: int, available: int, window: tuple[int, int]) -> None:
    rows, columns = pixels.shape
    if pixels.dtype.name not in STORED:
        raise UsageError(f"pixels are {pixels.dtype}, expected {', '.join(STORED)}. Convert them first.")
    if min(row, column) < 0 or row + rows > window[0] or column + columns > window[1]:
        raise UsageError(
            f"{rows} x {columns} pixels at {(row, column)} extend beyond the network frame of {window[0]} x "
            f"{window[1]}. Give only the part inside the network frame."
        )
    if area_bytes(rows, columns, pixels.dtype.name) > available:
        raise UsageError(
            f"{rows} x {columns} {pixels.dtype} pixels need {area_bytes(rows, columns, pixels.dtype.name)} bytes, the "
            f"staging area has {available}. {largest_area(window)} bytes are enough for any image."
        )

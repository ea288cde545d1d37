"""Staging areas for the upload of raw views: per image a header, followed by the pixels inside the network's window.

Areas are stored consecutively at equal distances. Values are little-endian; rows start at multiples of 16 bytes. The
kernels `moments` and `standardize` read the areas (standardize.cu, struct View).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import UsageError
from glam_deploy.gpu.kernels.geometry import HEADER_BYTES, PIXEL_FLOAT32, PIXEL_UINT16
from glam_deploy.records import Pixels

HEADER = np.dtype(
    {
        "names": ["rows", "columns", "row", "column", "mirrored", "kind"],
        "formats": ["<i4"] * 6,
        "itemsize": HEADER_BYTES,
    }
)
"""`rows`, `columns`: number of pixels; `row`, `column`: position of their upper-left corner in the network frame;
`mirrored`: 0 or 1; `kind`: pixel type, see STORED."""

STORED: Mapping[str, tuple[int, np.dtype[Any]]] = MappingProxyType(
    {
        "uint8": (PIXEL_UINT16, np.dtype("<u2")),
        "uint16": (PIXEL_UINT16, np.dtype("<u2")),
        "float32": (PIXEL_FLOAT32, np.dtype("<f4")),
    }
)
"""dtype of the pixels -> `kind` of the header, and dtype in the area. uint8 is converted to uint16."""


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
    area[:HEADER_BYTES].view(HEADER)[0] = (rows, columns, row, column, mirrored, kind)
    lines = area[HEADER_BYTES:used].reshape(rows, _pitch(columns, dtype)).view(dtype)
    lines[:, :columns] = pixels
    return used


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

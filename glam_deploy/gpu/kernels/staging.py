"""The upload of raw views: one staging area an image, a header and behind it the pixels that the network sees.

Areas lie one behind another at equal distances. Everything is little-endian; rows begin at multiples of 16 bytes. The
kernels `moments` and `standardize` read it (standardize.cu, struct View).
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
"""`rows`, `columns`: of the pixels; `row`, `column`: of their upper-left in the network frame; `kind`: see STORED."""

STORED: Mapping[str, tuple[int, np.dtype[Any]]] = MappingProxyType(
    {
        "uint8": (PIXEL_UINT16, np.dtype("<u2")),
        "uint16": (PIXEL_UINT16, np.dtype("<u2")),
        "float32": (PIXEL_FLOAT32, np.dtype("<f4")),
    }
)
"""How pixels of a dtype are kept: the header's `kind`, and the dtype there. 8 bits are widened."""


def largest_area(network_shape: tuple[int, int]) -> int:
    """Bytes of the largest area there can be: float32 pixels all over the network frame, in GLAM 22,609,984."""
    return area_bytes(*network_shape, "float32")


def area_bytes(rows: int, columns: int, dtype: str) -> int:
    """Bytes of an area that holds `rows` x `columns` pixels of a dtype in STORED; a multiple of 16."""
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
    """Write one image into its area; returns how many bytes of it are in use, from its beginning.

    `area`: uint8 [bytes], contiguous, on a 16-byte bound. `pixels`: uint8, uint16 or float32 [rows, columns], the part
    of the image that the network sees, as it lies in the source frame. `row`, `column`: its upper-left corner in the
    network frame of `network_shape`; `mirrored`: the network sees the columns from right to left. Raises UsageError for
    pixels of another dtype, that leave the network frame, or that do not fit into the area.
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


def _check(pixels: Pixels, row: int, column: int, room: int, window: tuple[int, int]) -> None:
    rows, columns = pixels.shape
    if pixels.dtype.name not in STORED:
        raise UsageError(f"Pixels to upload are {pixels.dtype}; expected {', '.join(STORED)}. Convert them first.")
    if min(row, column) < 0 or row + rows > window[0] or column + columns > window[1]:
        raise UsageError(
            f"{rows} x {columns} pixels at {(row, column)} leave the network frame of {window[0]} x {window[1]}. "
            "Give only the part that the network sees."
        )
    if area_bytes(rows, columns, pixels.dtype.name) > room:
        raise UsageError(
            f"{rows} x {columns} {pixels.dtype} pixels need {area_bytes(rows, columns, pixels.dtype.name)} bytes, the "
            f"staging area has {room}. {largest_area(window)} bytes are always enough."
        )

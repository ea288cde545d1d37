"""TIFF files whose strips, tiles and samples programs read in different ways."""

import struct
from pathlib import Path

import numpy as np
import pytest
from support.tiff import LONG, SHORT
from support.tiff import tiff as tiff_of

from glam_deploy.errors import InputError
from glam_deploy.images.image_files import read_image
from glam_deploy.records import Mammogram, Pixels, View

RNG = np.random.default_rng(3)
GREY16 = RNG.integers(0, 65536, (40, 30)).astype(np.uint16)
GREY8 = (GREY16 >> 8).astype(np.uint8)
ALPHA = (SHORT, [2])


def _read(tmp_path: Path, content: bytes) -> Mammogram:
    (tmp_path / "image").write_bytes(content)
    return read_image(tmp_path / "image", view=View.L_CC)


def _grey_tiff(pixels: Pixels, strips: int = 1, **more: object) -> bytes:
    rows, columns = pixels.shape[:2]
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    kind = 3 if pixels.dtype.kind == "f" else 1
    fields = {
        256: (SHORT, [columns]), 257: (SHORT, [rows]), 258: (SHORT, [8 * pixels.itemsize] * samples), 259: (SHORT, [1]),
        262: (SHORT, [1]), 277: (SHORT, [samples]), 278: (LONG, [rows // strips]), 339: (SHORT, [kind] * samples),
    }  # fmt: skip
    parts = [part.tobytes() for part in np.split(pixels, strips)]
    return tiff_of(parts, {**fields, **{int(name[1:]): value for name, value in more.items()}})


def test_floats_with_alpha_are_refused(tmp_path: Path) -> None:
    pixels = np.dstack([GREY8, np.ones_like(GREY8)]).astype(np.float32)
    with pytest.raises(InputError, match="floats with an alpha channel"):
        _read(tmp_path, _grey_tiff(pixels, t338=ALPHA))


def test_tags_of_strips_and_of_tiles_are_refused(tmp_path: Path) -> None:
    """libtiff decides by TileWidth, other programs by TileOffsets."""
    content = _grey_tiff(GREY16, strips=2, t322=(LONG, [16]), t323=(LONG, [16]))
    with pytest.raises(InputError, match="tags of strips and of tiles"):
        _read(tmp_path, content)


def test_strips_that_overlap_are_refused(tmp_path: Path) -> None:
    content = bytearray(_grey_tiff(GREY16, strips=2))
    np.testing.assert_array_equal(_read(tmp_path, bytes(content)).pixels, GREY16)
    half = GREY16[:20].tobytes()
    first, second = content.index(half), content.index(GREY16[20:].tobytes())
    at = content.index(struct.pack("<II", first, second))
    content[at : at + 8] = struct.pack("<II", first, first + 2)
    with pytest.raises(InputError, match="strips or tiles overlap"):
        _read(tmp_path, bytes(content))

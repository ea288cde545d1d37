"""Staging areas of whole images, and the sizes of what the kernels write about them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glam_deploy.errors import UsageError
from glam_deploy.gpu.kernels import placed, staging

UINT16 = np.dtype(np.uint16)
TYPES = [np.dtype(name) for name in ("uint8", "uint16", "float32")]


@pytest.mark.parametrize(("dtype", "kind", "pitch"), [(TYPES[0], 2, 16), (TYPES[1], 0, 32), (TYPES[2], 1, 48)])
def test_rows_of_a_whole_image_start_at_multiples_of_16_bytes(dtype: np.dtype, kind: int, pitch: int) -> None:
    area, pixels = np.full(1024, 0xFF, np.uint8), np.arange(27).reshape(3, 9).astype(dtype)
    used = staging.pack_whole(area, pixels, mirrored=True, is_mlo=False)
    assert used == staging.whole_bytes(3, 9, dtype) == 64 + 3 * pitch
    assert area[:32].view(np.int32).tolist() == [3, 9, 0, 0, 1, kind, 1, 0]
    for row in range(3):
        start = 64 + row * pitch
        np.testing.assert_array_equal(area[start : start + 9 * dtype.itemsize].view(dtype), pixels[row])
    assert (area[used:] == 0xFF).all()


def test_pixels_that_a_decoder_wrote_into_the_area_stay_there() -> None:
    area, pixels = np.zeros(4096, np.uint8), np.arange(70, dtype=np.uint16).reshape(10, 7)
    lines = staging.whole_lines(area, (10, 7), UINT16)
    lines[...] = pixels
    staging.pack_whole(area, lines, mirrored=False, is_mlo=True)
    assert area[:32].view(np.int32).tolist() == [10, 7, 0, 0, 0, 0, 1, 1]
    np.testing.assert_array_equal(staging.whole_lines(area, (10, 7), UINT16), pixels)


def test_a_view_of_other_lines_of_the_area_is_copied() -> None:
    area = np.zeros(4096, np.uint8)
    lines = staging.whole_lines(area, (10, 8), UINT16)
    lines[...] = np.arange(80).reshape(10, 8)
    staging.pack_whole(area, lines[::-1], mirrored=False, is_mlo=True)
    np.testing.assert_array_equal(lines, np.arange(80).reshape(10, 8)[::-1])


@pytest.mark.parametrize(
    ("shape", "dtype", "fits"),
    [
        ((5928, 4728), "uint16", True),
        ((4728, 5928), "uint16", True),
        ((8192, 3600), "uint8", True),
        ((8193, 300), "uint8", False),
        ((300, 8193), "uint8", False),
        ((6000, 5001), "uint8", False),
        ((5928, 4728), "float32", False),
        ((3328, 2560), "float32", True),
        ((1, 1), "uint8", True),
        ((0, 5), "uint16", False),
        ((30, 50, 3), "uint8", False),
        ((30, 50), "int16", False),
        ((30, 50), ">u2", False),
    ],
)
def test_limits_of_whole_images(shape: tuple[int, ...], dtype: str, fits: bool) -> None:
    assert staging.fits(shape, np.dtype(dtype)) is fits


@pytest.mark.parametrize(("shape", "bytes_of_area"), [((8193, 4), 200_000), ((64, 64), 8192)])
def test_what_does_not_fit_is_refused(shape: tuple[int, int], bytes_of_area: int) -> None:
    with pytest.raises(UsageError, match=r"does not fit into a staging area of \d+ bytes.*Place it on the host"):
        staging.pack_whole(np.zeros(bytes_of_area, np.uint8), np.zeros(shape, np.uint16), mirrored=False, is_mlo=False)


@given(rows=st.integers(1, 8192), columns=st.integers(1, 8192), dtype=st.sampled_from(TYPES))
def test_samples_of_any_image_fit_into_their_block(rows: int, columns: int, dtype: np.dtype) -> None:
    if staging.fits((rows, columns), dtype):
        assert placed.used_samples_bytes(rows, columns, dtype) <= placed.samples_bytes()


def test_memory_of_the_largest_image() -> None:
    assert staging.LARGEST_BYTES == 60_000_064
    assert placed.place_scratch_bytes(1) <= 2.5 * 30_000_000
    assert placed.place_scratch_bytes(4) == 4 * placed.place_scratch_bytes(1)
    assert placed.samples_bytes() % 256 == placed.place_scratch_bytes(1) % 256 == 0

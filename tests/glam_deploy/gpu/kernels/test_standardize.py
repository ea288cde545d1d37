"""Upload and standardization on the CPU, against exact moments and against preprocessing."""

from math import isqrt

import numpy as np
import pytest
from cuda_host.run import HostModule, HostStream, Memory

from glam_deploy.errors import UsageError
from glam_deploy.gpu.kernels.launch import Kernels, scratch_bytes
from glam_deploy.gpu.kernels.staging import area_bytes, largest_area, pack
from glam_deploy.gpu.uploads import part_of
from glam_deploy.networks import GLAM
from glam_deploy.preprocess import frame
from glam_deploy.preprocess.prepare import network_input, place
from glam_deploy.records import Mammogram, Source, View

ROWS, COLUMNS = GLAM.input_shape
AREA_BYTES = largest_area(GLAM.input_shape)
COUNT = ROWS * COLUMNS


class Upload:
    """Staging and image for `n` views, used again and again as a pipeline does: what was there before stays there."""

    def __init__(self, kernels: Kernels, n: int) -> None:
        self.n, self._kernels = n, kernels
        self._areas, self._image = Memory((n, AREA_BYTES), np.uint8), Memory((n, ROWS, COLUMNS), np.float32)
        self._scratch = Memory.of(np.zeros(scratch_bytes(n, GLAM), np.uint8))

    def __call__(self, *views: tuple[np.ndarray, int, int, bool]) -> np.ndarray:
        for area, (pixels, row, column, mirrored) in zip(self._areas.array, views, strict=True):
            used = pack(area, pixels, row=row, column=column, mirrored=mirrored, network_shape=GLAM.input_shape)
            area[used:][:4096] = 0xFF
        self._kernels.standardize(HostStream(), areas=self._areas, image=self._image, scratch=self._scratch, n=self.n)
        self._scratch.read()
        return self._image.read()


@pytest.fixture(scope="module")
def upload(kernels: Kernels) -> Upload:
    return Upload(kernels, 1)


def placed(pixels: np.ndarray, row: int, column: int, mirrored: bool) -> np.ndarray:
    """The network frame before standardization, by definition."""
    out = np.zeros(GLAM.input_shape, pixels.dtype)
    out[row : row + pixels.shape[0], column : column + pixels.shape[1]] = pixels[:, ::-1] if mirrored else pixels
    return out


def standardized_exactly(image: np.ndarray) -> np.ndarray:
    """With moments in whole numbers of any length; float32 arithmetic only for what the definition has in float32."""
    values = image.astype(np.uint64)
    total, squares = int(values.sum()), int((values * values).sum())
    deviation = isqrt((COUNT * squares - total * total) << 100) / 2**50 / COUNT
    mean, divisor = np.float32(total / COUNT), np.float32(max(deviation, 1e-5))
    return (image.astype(np.float32) - mean) / divisor


def noise(shape: tuple[int, int], dtype: str, low: int, high: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(low, high, shape, endpoint=True).astype(dtype)


WHOLE_NUMBERS = {
    "whole window": (noise(GLAM.input_shape, "uint16", 0, 4095), 0, 0, False),
    "a carry between the halves of 128 bits": (noise(GLAM.input_shape, "uint16", 0, 1999), 0, 0, False),
    "whole window mirrored": (noise(GLAM.input_shape, "uint16", 0, 65535), 0, 0, True),
    "bright and of little contrast": (noise(GLAM.input_shape, "uint16", 65534, 65535), 0, 0, False),
    "constant": (np.full(GLAM.input_shape, 60001, np.uint16), 0, 0, False),
    "inside, odd sizes": (noise((1001, 777), "uint16", 1, 9999), 333, 111, False),
    "inside, odd sizes, mirrored": (noise((1001, 777), "uint16", 1, 9999), 333, 111, True),
    "lower right": (noise((5, 9), "uint16", 0, 3), ROWS - 5, COLUMNS - 9, True),
    "a pixel": (np.array([[7]], np.uint16), 0, COLUMNS - 1, False),
    "8 bits": (noise((2000, 1001), "uint8", 0, 255), 900, 3, True),
}


@pytest.mark.parametrize("view", WHOLE_NUMBERS.values(), ids=WHOLE_NUMBERS)
def test_whole_numbers_are_standardized_exactly(upload: Upload, view: tuple[np.ndarray, int, int, bool]) -> None:
    np.testing.assert_array_equal(upload(view)[0], standardized_exactly(placed(*view)))


@pytest.mark.parametrize(
    ("scale", "offset", "mirrored"), [(1, 0, False), (1e-6, 0, True), (1e30, 0, False), (1, 3000, True)]
)
def test_float_pixels(upload: Upload, scale: float, offset: float, mirrored: bool) -> None:
    pixels = (np.random.default_rng(3).random((2901, 1003)) * scale + offset).astype(np.float32)
    image = placed(pixels, 40, 501, mirrored)
    mean, deviation = image.mean(dtype=np.float64), image.std(dtype=np.float64)  # numpy takes the mean off first
    expected = (image - np.float32(mean)) / np.float32(max(deviation, 1e-5))
    np.testing.assert_allclose(upload((pixels, 40, 501, mirrored))[0], expected, rtol=1e-6, atol=1e-6)


def test_sums_of_float_pixels_do_not_depend_on_the_order_of_blocks(upload: Upload, module: HostModule) -> None:
    pixels = np.random.default_rng(5).random((2944, 1500), dtype=np.float32)
    there = upload((pixels, 0, 0, False))
    with module.backwards():
        np.testing.assert_array_equal(upload((pixels, 0, 0, False)), there)


def test_four_views_at_once_do_not_mix(kernels: Kernels) -> None:
    views = [
        (noise((2944, 1920), "uint16", 0, 4095), 0, 0, True),
        (noise((600, 500), "uint16", 1, 65535), 17, 1400, False),
        (np.random.default_rng(1).random((1200, 1300), dtype=np.float32), 1000, 600, True),
        (noise((31, 33), "uint8", 1, 255), 0, 0, False),
    ]
    together, alone = Upload(kernels, 4)(*views), Upload(kernels, 1)
    for image, view in zip(together, views, strict=True):
        np.testing.assert_array_equal(image, alone(view)[0])


@pytest.mark.parametrize("half_turn", [False, True])
@pytest.mark.parametrize(("view", "dtype"), [(View.R_CC, "uint16"), (View.L_MLO, "float32"), (View.R_MLO, "uint8")])
def test_a_raw_view_becomes_what_preprocessing_makes_of_it(
    upload: Upload, view: View, dtype: str, half_turn: bool
) -> None:
    """A view that is larger than the window, as a detector has it, and faces either side."""
    rng = np.random.default_rng(11)
    pixels = np.zeros((3328, 2560), dtype)
    pixels[200:3100, :1400] = rng.integers(1, 250, (2900, 1400))
    if view.is_right:
        pixels = pixels[:, ::-1].copy()
    if half_turn:
        pixels = pixels[::-1, ::-1].copy()
    source = Source(name="array", kind="array")
    found = place(Mammogram(pixels=pixels, view=view, half_turn=half_turn, source=source))
    seen = frame.seen(found.placement)
    image = upload((part_of(found), *seen.network[:2], seen.columns_reversed))[0]
    np.testing.assert_allclose(image, network_input(found).image, rtol=1e-6, atol=1e-6)


def test_an_area_is_packed_as_tightly_as_rows_of_16_bytes_allow() -> None:
    area = np.zeros(AREA_BYTES, np.uint8)
    assert (
        pack(area, np.ones((3, 9), np.uint16), row=5, column=6, mirrored=True, network_shape=GLAM.input_shape)
        == 64 + 3 * 32
    )
    assert area[:24].view(np.int32).tolist() == [3, 9, 5, 6, 1, 0]
    assert area[64:96].view(np.uint16).tolist() == [1] * 9 + [0] * 7
    assert area_bytes(*GLAM.input_shape, "float32") == AREA_BYTES == 22_609_984
    assert area_bytes(*GLAM.input_shape, "uint8") == 64 + 2 * COUNT


@pytest.mark.parametrize(
    ("pixels", "where", "words"),
    [
        (np.zeros((4, 4), np.int32), (0, 0), r"int32, expected uint8, uint16, float32"),
        (np.zeros((4, 4), np.uint16), (0, 1917), r"4 x 4 pixels at \(0, 1917\) extend beyond the network frame"),
        (np.zeros((4, 4), np.uint16), (-1, 0), r"extend beyond the network frame of 2944 x 1920"),
        (np.zeros((100, 100), np.float32), (0, 0), r"need 40064 bytes, the staging area has 4096"),
    ],
)
def test_what_cannot_be_uploaded_is_refused(pixels: np.ndarray, where: tuple[int, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        pack(
            np.zeros(4096, np.uint8),
            pixels,
            row=where[0],
            column=where[1],
            mirrored=False,
            network_shape=GLAM.input_shape,
        )

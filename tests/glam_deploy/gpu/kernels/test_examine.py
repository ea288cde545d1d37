"""Images that are not finite are told, on the CPU."""

import numpy as np
import pytest
from cuda_host.run import HostModule, HostStream, Memory

from glam_deploy.gpu.kernels.geometry import Flags
from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.networks import GLAM

ROWS, COLUMNS = GLAM.input_shape
FLAT = int(Flags.FLAT_BENIGN)


def examined(kernels: Kernels, images: np.ndarray) -> list[int]:
    """Between margins of NaN, with a bit set before."""
    flags = Memory.of(np.full(len(images), FLAT, np.uint32))
    kernels.examine(HostStream(), image=Memory.of(images), flags=flags, n=len(images))
    return flags.read().tolist()


def test_finite_images(kernels: Kernels, module: HostModule) -> None:
    images = np.random.default_rng(0).standard_normal((2, 1, ROWS, COLUMNS), np.float32)
    images[0, 0, 0, :4] = [np.finfo(np.float32).max, np.finfo(np.float32).min, -0.0, 1e-45]
    assert examined(kernels, images) == [FLAT, FLAT]
    with module.backwards():
        assert examined(kernels, images) == [FLAT, FLAT]


@pytest.mark.parametrize(
    ("value", "pixel"), [(np.nan, (0, 0)), (np.inf, (2, 961)), (-np.inf, (1471, 1918)), (np.nan, (2943, 1919))], ids=str
)
def test_one_pixel(kernels: Kernels, value: float, pixel: tuple[int, int]) -> None:
    images = np.zeros((2, 1, ROWS, COLUMNS), np.float32)
    images[1, 0][pixel] = value
    assert examined(kernels, images) == [FLAT, FLAT | Flags.NOT_FINITE_IMAGE]


@pytest.mark.parametrize("row", range(4))
def test_every_one_of_a_threads_pixels(kernels: Kernels, row: int) -> None:
    images = np.zeros((1, 1, ROWS, COLUMNS), np.float32)
    images[0, 0, 400 + row, 800 + row] = np.nan
    assert examined(kernels, images) == [FLAT | Flags.NOT_FINITE_IMAGE]

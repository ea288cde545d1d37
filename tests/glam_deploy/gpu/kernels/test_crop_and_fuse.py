"""Crop and fusion on the CPU, the same values as numpy."""

import numpy as np
import pytest
from cuda_host.run import HostModule, HostStream, Memory

from glam_deploy.gpu.kernels.geometry import Flags
from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.networks import GLAM
from glam_deploy.runtime import patching

ROWS, COLUMNS = GLAM.input_shape
UNUSED = (-1, -1)
CORNERS = [(0, 0), (2432, 1408), (0, 1408), (2432, 0), (1216, 704), (16, 1392)]


def slots(*images: list[tuple[int, int]]) -> np.ndarray:
    """int64 [n, 6, 2]."""
    return np.array([places + [UNUSED] * (6 - len(places)) for places in images], np.int64)


@pytest.mark.parametrize("places", [[CORNERS], [CORNERS[4:5]] * 4, [CORNERS[i : i + 3] for i in range(4)]])
def test_crop(kernels: Kernels, places: list[list[tuple[int, int]]]) -> None:
    n, k = len(places), len(places[0])
    numbers = np.arange(n * ROWS * COLUMNS, dtype=np.uint32).reshape(n, ROWS, COLUMNS)  # every pixel has its own
    image, patches = Memory.of(numbers.view(np.float32)), Memory((n * k, 1, 512, 512), np.float32)
    stream = HostStream()
    kernels.crop(stream, image=image, locations=Memory.of(slots(*places)), patches=patches, k=k, n=n)
    pairs = [(number, place) for number, at in zip(numbers, places, strict=True) for place in at]
    expected = np.stack([number[r : r + 512, c : c + 512] for number, (r, c) in pairs])
    np.testing.assert_array_equal(patches.read().view(np.uint32)[:, 0], expected)
    assert len(stream.launches) == 1


class Fusion:
    """Device arrays of one or more images with random maps; patches of slots not in use are NaN."""

    def __init__(self, *places: list[tuple[int, int]]) -> None:
        rng, n = np.random.default_rng(len(places)), len(places)
        self.places = places
        self.saliency_global = rng.random((n, 2, *GLAM.map_shape), dtype=np.float32)
        self.saliency_patches = np.full((n, 6, 2, 128, 128), np.nan, np.float32)
        for patches, used in zip(self.saliency_patches, places, strict=True):
            patches[: len(used)] = rng.random((len(used), 2, 128, 128), dtype=np.float32)
        self.flags = np.zeros(n, np.uint32)

    def run(self, kernels: Kernels) -> np.ndarray:
        n = len(self.places)
        saliency, flags = Memory((n, 2, ROWS, COLUMNS), np.float32), Memory.of(self.flags)
        kernels.fuse(
            HostStream(),
            saliency_global=Memory.of(self.saliency_global),
            saliency_patches=Memory.of(self.saliency_patches),
            locations=Memory.of(slots(*self.places)),
            saliency=saliency,
            flags=flags,
            n=n,
        )
        self.flags = flags.read()
        return saliency.read()

    def expected(self) -> np.ndarray:
        return np.stack(
            [
                patching.enlarge(
                    patching.fuse(whole, patches[: len(at)], np.array(at, np.int64).reshape(-1, 2), GLAM), 4
                )
                for whole, patches, at in zip(self.saliency_global, self.saliency_patches, self.places, strict=True)
            ]
        )


PLACES = {
    "one": [[(64, 1344)]],
    "corners": [CORNERS],
    "overlapping": [[(160, 320), (400, 480), (176, 304), (160, 320)]],
    "multiples of 4": [[(4 * 7, 4 * 9), (4 * 70, 4 * 51), (4 * 73, 4 * 60)]],
    "all the same": [[(0, 0)] * 6],
    "none": [[]],
    "four images": [CORNERS[:2], CORNERS[2:4], CORNERS[4:], [(512, 512), (528, 640)]],
}


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_fuse(kernels: Kernels, places: list[list[tuple[int, int]]]) -> None:
    fusion = Fusion(*places)
    fusion.flags[:] = Flags.FLAT_BENIGN
    np.testing.assert_array_equal(fusion.run(kernels), fusion.expected())
    assert fusion.flags.tolist() == [Flags.FLAT_BENIGN] * len(places)


def test_the_order_of_blocks_and_threads_does_not_matter(kernels: Kernels, module: HostModule) -> None:
    fusion = Fusion(*PLACES["overlapping"])
    with module.backwards():
        np.testing.assert_array_equal(fusion.run(kernels), fusion.expected())


@pytest.mark.parametrize(
    ("value", "cell"), [(np.nan, (0, 0, 0)), (np.inf, (1, 183, 119)), (-np.inf, (1, 77, 40))], ids=str
)
def test_a_global_map_that_is_not_finite(kernels: Kernels, value: float, cell: tuple[int, int, int]) -> None:
    fusion = Fusion([(0, 0)], [(64, 64)])
    fusion.saliency_global[1][cell] = value
    fusion.flags[:] = [Flags.FLAT_MALIGNANT, Flags.FLAT_BENIGN]
    np.testing.assert_array_equal(fusion.run(kernels), fusion.expected())
    assert fusion.flags.tolist() == [Flags.FLAT_MALIGNANT, Flags.FLAT_BENIGN | Flags.NOT_FINITE_GLOBAL]


@pytest.mark.parametrize(
    ("value", "cell"), [(np.nan, (0, 0, 0)), (np.inf, (1, 127, 127)), (-np.inf, (0, 50, 60))], ids=str
)
def test_a_patch_that_is_not_finite_is_told_also_where_another_hides_it(
    kernels: Kernels, value: float, cell: tuple[int, int, int]
) -> None:
    fusion = Fusion([(0, 0)], [(160, 320), (800, 320), (160, 320)])
    fusion.saliency_patches[1, 0][cell] = value
    assert np.isfinite(fusion.run(kernels)).all()
    assert fusion.flags.tolist() == [0, Flags.NOT_FINITE_LOCAL]


def test_both_parts_that_are_not_finite(kernels: Kernels) -> None:
    fusion = Fusion([(160, 320)])
    fusion.saliency_patches[0, 0, 0, 0, 0] = fusion.saliency_global[0, 0, 0, 0] = np.nan
    fusion.run(kernels)
    assert fusion.flags.tolist() == [Flags.NOT_FINITE_GLOBAL | Flags.NOT_FINITE_LOCAL]

"""Components of any shape: random masks, ties, spirals, combs, with kernels that erode 3 times and add 3 pixels.

Thin shapes remain after 3 erosions, so that small images have many components, long chains of runs and every position
of a crop relative to the window.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cuda_host.build import build_kernels
from cuda_host.run import HostModule
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from support.whole_images import Placer, assert_same

from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.gpu.kernels.placed import PlaceStatus
from glam_deploy.networks import CAM
from glam_deploy.preprocess import foreground, frame, window
from glam_deploy.preprocess.standardize import standardize
from glam_deploy.records import Mammogram, Pixels, View

SHALLOW = 3
BUFFER = 3
FRAME = replace(CAM, input_shape=(96, 128), map_shape=(3, 4))
Trial = tuple[Placer, HostModule]


@pytest.fixture(scope="module")
def trial(host_kernels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """`host_kernels` only because it skips without a compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreground, "EROSIONS", SHALLOW)
        patch.setattr(window, "BUFFER", BUFFER)
        patch.setattr(window, "crop_box", partial(window.crop_box, buffer=BUFFER))
        module = HostModule(build_kernels(tmp_path_factory.mktemp("shallow"), FRAME))
        yield Placer(Kernels(module, FRAME), FRAME, area_bytes=300_000), module


def check(trial: Trial, mask: Pixels, view: View = View.L_CC, *, backwards: bool = False) -> None:
    """A mask with any values above 0."""
    placer, module = trial
    values = np.random.default_rng(mask.size).integers(1, 99, mask.shape)
    sample = Mammogram(pixels=np.where(mask, values, 0).astype(np.uint16), view=view)
    with module.backwards() if backwards else nullcontext():
        located = placer(sample)[0]
    if ndimage.binary_erosion(mask, iterations=SHALLOW).any():
        placement = assert_same(located, sample, FRAME.input_shape, SHALLOW)
        expected = frame.map_to_network(placement, sample.pixels).astype(np.float32)
        standardize(expected)
        np.testing.assert_allclose(placer.images()[0], expected, rtol=1e-6, atol=1e-6)
    else:
        assert located.status in {PlaceStatus.THIN, PlaceStatus.EMPTY, PlaceStatus.CONSTANT}
        assert located.found is None


@st.composite
def blobs(draw: st.DrawFn, largest: int = 150) -> Pixels:
    """A mask of rectangles, some of equal size, with pixels set and cleared."""
    rows, columns = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    mask = np.zeros((rows, columns), np.bool_)
    height, width = draw(st.integers(5, 70)), draw(st.integers(5, 70))
    for _ in range(draw(st.integers(0, 9))):
        row, column = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
        size = (height, width) if draw(st.booleans()) else (draw(st.integers(1, 90)), draw(st.integers(1, 90)))
        mask[row : row + size[0], column : column + size[1]] = True
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for value in (True, False):
        mask[rng.integers(0, rows, 12), rng.integers(0, columns, 12)] = value
    return mask


@settings(max_examples=60)
@given(mask=blobs(), view=st.sampled_from(View), backwards=st.booleans())
def test_random_masks(trial: Trial, mask: Pixels, view: View, backwards: bool) -> None:
    check(trial, mask, view, backwards=backwards)


@pytest.mark.slow
@settings(max_examples=1000)
@given(mask=blobs(350), view=st.sampled_from(View), backwards=st.booleans())
def test_many_random_masks(trial: Trial, mask: Pixels, view: View, backwards: bool) -> None:
    check(trial, mask, view, backwards=backwards)


def spiral(side: int = 241) -> Pixels:
    """An arm of 7 pixels that turns inwards, with gaps of 3."""
    mask, step = np.zeros((side, side), np.bool_), 10
    for i in range(0, side // 2 - step, step):
        last = side - 1 - i
        mask[i : i + 7, max(0, i - step) : last + 1] = mask[last - 6 : last + 1, i : last + 1] = True
        mask[i : last + 1, last - 6 : last + 1] = mask[i + step : last + 1, i : i + 7] = True
    return mask


def comb(*, upside_down: bool) -> Pixels:
    """Teeth that are joined at one end only, and one separate row that is larger than each tooth."""
    mask = np.zeros((250, 301), np.bool_)
    for column in range(0, 290, 10):
        mask[:200, column : column + 7] = True
    mask[193:200] = True
    mask[220:240, 40:90] = True
    return mask[::-1] if upside_down else mask


def dense(seed: int) -> Pixels:
    """Full of single holes: a run begins in every few pixels, and most components are small."""
    mask = np.random.default_rng(seed).random((230, 333)) > 0.02
    mask[::7] = True
    return mask


def staircase() -> Pixels:
    """Squares that touch at corners only, which are separate components of equal size."""
    core = np.zeros((200, 200), np.bool_)
    for i in range(0, 190, 10):
        core[i + 3 : i + 13, i + 3 : i + 13] = True
        core[i + 3 : i + 13, 187 - i : 197 - i] |= i > 120
    return core


SHAPES = {
    "spiral": spiral(),
    "spiral mirrored": spiral()[:, ::-1],
    "comb": comb(upside_down=False),
    "comb upside down": comb(upside_down=True),
    "holes": dense(1),
    "more holes": dense(2),
    "squares at corners": staircase(),
    "lines of equal length": (np.arange(160)[:, None] % 10 < 7) & np.ones((160, 130), np.bool_),
    "columns of equal length": (np.arange(160) % 10 < 7) & np.ones((130, 160), np.bool_),
    "rows of 33 words": np.pad(np.ones((20, 1050), np.bool_), ((3, 3), (1, 5))),
}


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("mask", SHAPES.values(), ids=SHAPES)
def test_shapes_with_long_chains_and_ties(trial: Trial, mask: Pixels, backwards: bool) -> None:
    for view in (View.L_CC, View.R_MLO):
        check(trial, mask, view, backwards=backwards)


def test_a_breast_as_high_and_wide_as_the_image_and_the_window(trial: Trial) -> None:
    for rows in (95, 96, 97, 200):
        for columns in (127, 128, 129, 300):
            mask = np.ones((rows, columns), np.bool_)
            mask[rows // 2, columns // 2] = False
            check(trial, mask, View.L_MLO if rows % 2 else View.R_CC)


def test_every_pixel_of_the_diamond_erodes_its_centre(trial: Trial) -> None:
    """A square whose core is one pixel, with a hole anywhere in it."""
    side = 2 * SHALLOW + 1
    for hole in np.ndindex(side, side):
        mask = np.ones((side, side), np.bool_)
        mask[hole] = False
        check(trial, mask)

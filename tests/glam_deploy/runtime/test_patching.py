"""Patch selection, crop and fusion, each against its definition written out."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from glam_deploy.networks import GLAM, GMIC, NetworkSpec
from glam_deploy.records import GlobalMaps
from glam_deploy.runtime import patching

SMALL = replace(
    GLAM,
    input_shape=(96, 72),
    map_shape=(24, 18),
    selection=replace(GLAM.patches, side=20, window=5, map_side=10),
)
"""GLAM with cells of 4 pixels, windows of 5 cells and patch maps with cells of 2: every pixel can be compared."""
ROWS, COLUMNS = SMALL.map_shape
SIDE = SMALL.patches.window


def brute_force(saliency: np.ndarray, count: int) -> list[tuple[int, int]]:
    """The choice as the paper tells it, in float64: nothing shared with the code under test."""
    heat = np.zeros(SMALL.map_shape)
    for values in saliency.astype(np.float64):
        if values.max() > values.min():
            heat += (values - values.min()) / (values.max() - values.min())
    chosen = []
    for _ in range(count):
        sums = sliding_window_view(heat, (SIDE, SIDE)).sum((2, 3))
        place = min(map(tuple, np.argwhere(sums == sums.max()).tolist()))
        chosen.append(place)
        heat[place[0] : place[0] + SIDE, place[1] : place[1] + SIDE] = 0
    return chosen


@st.composite
def class_maps(draw: st.DrawFn) -> np.ndarray:
    """One class's map in whole eighths from 0 to 1, then scaled and shifted by powers of two: every sum is exact.

    Rectangles on a flat ground tie often; noise hardly ever does.
    """
    eighths = np.zeros(SMALL.map_shape)
    if draw(st.booleans()):
        eighths += np.random.default_rng(draw(st.integers(0, 1000))).integers(0, 9, SMALL.map_shape)
    for _ in range(draw(st.integers(0, 4))):
        row, column = draw(st.integers(0, ROWS - 1)), draw(st.integers(0, COLUMNS - 1))
        height, width = draw(st.integers(1, 10)), draw(st.integers(1, 10))
        eighths[row : row + height, column : column + width] = draw(st.integers(0, 8))
    # both ends of the range somewhere, so that it is 0 to 1
    low, high = draw(st.lists(st.integers(0, ROWS * COLUMNS - 1), min_size=2, max_size=2, unique=True))
    eighths.flat[low], eighths.flat[high] = 0, 8
    scale = 2.0 ** -draw(st.integers(1, 6))
    return (eighths / 8 * scale + draw(st.sampled_from([0, 0.25, 0.5]))).astype(np.float32)


@settings(max_examples=200)
@given(benign=class_maps(), malignant=class_maps(), count=st.integers(1, 6))
def test_windows_are_those_of_brute_force(benign: np.ndarray, malignant: np.ndarray, count: int) -> None:
    saliency = np.stack([benign, malignant])
    before = saliency.copy()
    chosen, flat = patching.choose_windows(saliency, count, SMALL.patches)
    assert chosen == brute_force(saliency, count)
    assert flat.tolist() == [False, False]
    np.testing.assert_array_equal(saliency, before)


@settings(max_examples=50)
@given(lively=class_maps(), level=st.floats(0, 1, width=32), which=st.integers(0, 1))
def test_a_flat_class_takes_no_part(lively: np.ndarray, level: float, which: int) -> None:
    still = np.full(SMALL.map_shape, level, np.float32)
    chosen, flat = patching.choose_windows(np.stack([still, lively] if which else [lively, still]), 6, SMALL.patches)
    assert chosen == brute_force(np.stack([lively, np.zeros_like(lively)]), 6)
    assert flat.tolist() == ([True, False] if which else [False, True])


def test_two_flat_classes_give_the_first_window() -> None:
    chosen, flat = patching.choose_windows(np.full((2, *GLAM.map_shape), 0.3, np.float32), 6, GLAM.patches)
    assert chosen == [(0, 0)] * 6
    assert flat.tolist() == [True, True]


def spots(*places: tuple[int, int, float]) -> np.ndarray:
    """Both classes with single cells of the given height on zeros."""
    maps = np.zeros((2, *GLAM.map_shape), np.float32)
    for row, column, height in places:
        maps[:, row, column] = height
    return maps


def test_the_first_of_equal_windows_in_row_major_order() -> None:
    # every window that holds the spot has the same sum; the first of them has it in its lower right corner
    assert patching.choose_windows(spots((100, 80, 1)), 1, GLAM.patches)[0] == [(69, 49)]
    assert patching.choose_windows(spots((0, 0, 1)), 1, GLAM.patches)[0] == [(0, 0)]
    assert patching.choose_windows(spots((183, 119, 1)), 1, GLAM.patches)[0] == [(152, 88)]
    # two equal spots: the upper one, though the lower is further left
    assert patching.choose_windows(spots((50, 110, 1), (150, 40, 1)), 2, GLAM.patches)[0] == [(19, 79), (119, 9)]


def test_a_chosen_window_is_not_chosen_again() -> None:
    places = [(40, 40, 1.0), (40, 100, 0.875), (140, 40, 0.75), (140, 100, 0.625), (90, 70, 0.5)]
    chosen, _ = patching.choose_windows(spots(*places), 6, GLAM.patches)
    assert chosen == [(9, 9), (9, 69), (109, 9), (109, 69), (59, 39), (0, 0)]


@given(row=st.integers(0, 152), column=st.integers(0, 88))
def test_cell_to_pixel(row: int, column: int) -> None:
    assert patching.cell_to_pixel((row, column), GLAM) == (16 * row, 16 * column)


@given(row=st.integers(0, 45), column=st.integers(0, 29))
def test_cell_to_pixel_is_rounded_half_to_even(row: int, column: int) -> None:
    """In exact fractions; GMIC's cells are no whole number of pixels apart in a network frame of 2950 x 1925."""
    network = replace(GMIC, input_shape=(2950, 1925))
    pixels = tuple(
        round(Fraction(at * pixels, cells))
        for at, pixels, cells in zip((row, column), network.input_shape, network.map_shape, strict=True)
    )
    assert patching.cell_to_pixel((row, column), network) == pixels


@pytest.fixture(scope="module")
def numbered() -> np.ndarray:
    """float32 [2944, 1920]: every pixel holds its own number, exactly."""
    return np.arange(2944 * 1920, dtype=np.float32).reshape(GLAM.input_shape)


@given(row=st.integers(0, 152), column=st.integers(0, 88))
@settings(max_examples=10)
def test_crop(numbered: np.ndarray, row: int, column: int) -> None:
    places = np.array([[16 * row, 16 * column], [2432, 1408], [0, 0]], np.int64)
    patches = patching.crop(numbered, places, GLAM.patches.side)
    assert patches.shape == (3, 1, 512, 512)
    y, x = np.ogrid[:512, :512]
    for patch, (r, c) in zip(patches, places.tolist(), strict=True):
        np.testing.assert_array_equal(patch[0], (r + y) * 1920 + c + x)


@pytest.mark.parametrize("count", [1, 6])
def test_select_keeps_images_apart(numbered: np.ndarray, count: int) -> None:
    maps = np.stack([spots((100, 80, 1)), np.full((2, *GLAM.map_shape), 0.5, np.float32)])
    unused = np.zeros((2, 0), np.float32)
    images = np.stack([numbered, -numbered])[:, None]
    made = patching.select(images, GlobalMaps(saliency=maps, y_scale=unused, y_global=None, z_g=unused), count, GLAM)
    assert made.locations.dtype == np.int64
    assert made.locations.shape == (2, count, 2)
    assert made.locations[0, 0].tolist() == [69 * 16, 49 * 16]
    assert made.pixels[0, 0, 0, 0, 0] == 69 * 16 * 1920 + 49 * 16
    assert made.pixels[1, -1, 0, 511, 511] == -(511 * 1920 + 511)
    assert made.flat.tolist() == [[False, False], [True, True]]


def fused_by_definition(
    saliency: np.ndarray, patches: np.ndarray, places: np.ndarray, network: NetworkSpec
) -> np.ndarray:
    """Pixel by pixel at full resolution: the last patch over a pixel, or 0, averaged with the map's cell."""
    y, x = np.mgrid[: network.input_shape[0], : network.input_shape[1]]
    side, rule = network.patches.side, network.patches
    cell, global_cell = side // rule.map_side, network.input_shape[0] // network.map_shape[0]
    local = np.zeros((2, *network.input_shape), np.float32)
    for patch, (row, column) in zip(patches, places.tolist(), strict=True):
        inside = (y >= row) & (y < row + side) & (x >= column) & (x < column + side)
        local[:, inside] = patch[:, (y[inside] - row) // cell, (x[inside] - column) // cell]
    return (local + saliency[:, y // global_cell, x // global_cell]) / np.float32(2)


@pytest.mark.parametrize(
    ("network", "places"),
    [
        (GLAM, [(160, 320), (400, 480), (160, 320), (2432, 1408)]),
        (SMALL, [(8, 40)]),
        (SMALL, [(0, 0), (76, 52)]),
        (SMALL, [(20, 24), (30, 32), (20, 24)]),
        (SMALL, [(2 * 7, 2 * 9), (2 * 30, 2 * 23)]),
    ],
    ids=["GLAM", "one", "corners", "overlapping and repeated", "on the grid of patch maps"],
)
def test_fuse(network: NetworkSpec, places: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(len(places))
    saliency = rng.random((2, *network.map_shape), dtype=np.float32)
    side = network.patches.map_side
    patches = rng.random((len(places), 2, side, side), dtype=np.float32)
    found = patching.fuse(saliency, patches, np.array(places, np.int64), network)
    assert (found.dtype, found.shape) == (np.float32, (2, *network.grid_shape))
    pixels = patching.enlarge(found, network.grid_cell)
    np.testing.assert_array_equal(pixels, fused_by_definition(saliency, patches, np.array(places), network))


def test_without_patch_maps_the_global_map_is_the_map() -> None:
    saliency = np.random.default_rng(0).random((2, *GMIC.map_shape), dtype=np.float32)
    assert patching.fuse(saliency, None, np.zeros((1, 2), np.int64), GMIC) is saliency


def test_an_image_or_patch_without_its_place_is_an_error() -> None:
    """Else the last one would be left out without a word."""
    maps, unused = spots((10, 8, 1))[None], np.zeros((1, 0), np.float32)
    images = np.zeros((2, 1, 64, 64), np.float32)
    with pytest.raises(ValueError, match="zip"):
        patching.select(images, GlobalMaps(saliency=maps, y_scale=unused, y_global=None, z_g=unused), 1, SMALL)
    side = SMALL.patches.map_side
    for patches, places in ((1, 2), (2, 1)):
        with pytest.raises(ValueError, match="zip"):
            patching.fuse(
                np.zeros((2, *SMALL.map_shape), np.float32),
                np.zeros((patches, 2, side, side), np.float32),
                np.zeros((places, 2), np.int64),
                SMALL,
            )

"""Maps in the source frame, in parts: each part is that of the whole, and the whole follows the placement."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.placements import placements

from glam_deploy.networks import GLAM
from glam_deploy.preprocess import SourceMaps, map_to_source, point_to_network

ROWS, COLUMNS = GLAM.input_shape
WINDOW = (96, 64)


def spots(placement, cell, seed):
    """Two maps with few values above 0.5, some of them where the source image is."""
    rng = np.random.default_rng(seed)
    shape = WINDOW[0] // cell, WINDOW[1] // cell
    grid = rng.uniform(0, 0.5, (2, *shape)).astype(np.float32)
    top, left = (max(0, -shift) // cell for shift in (placement.row_shift, placement.column_shift))
    rows, columns = top + rng.integers(0, 60 // cell + 1, 4), left + rng.integers(0, 60 // cell + 1, 4)
    grid[rng.integers(0, 2, 4), rows.clip(0, shape[0] - 1), columns.clip(0, shape[1] - 1)] = 0.75
    return SourceMaps(grid=grid, cell=cell, placement=placement)


@settings(max_examples=200)
@given(placement=placements(most=120, window=WINDOW), cell=st.sampled_from([1, 4, 16]), seed=st.integers(0, 999))
def test_parts_are_those_of_the_whole(placement, cell, seed):
    maps = spots(placement, cell, seed)
    whole = map_to_source(placement, maps.grid.repeat(cell, axis=1).repeat(cell, axis=2))
    assert maps.shape == whole.shape
    np.testing.assert_array_equal(maps.whole(), whole)
    masks = maps.above([0.5, 0.25])
    assert (maps.whole().dtype, masks.dtype) == (np.float32, np.bool_)
    np.testing.assert_array_equal(masks, whole > np.array([0.5, 0.25])[:, None, None])
    for n, threshold in enumerate((0.5, 0.25)):
        box = maps.extent(n, threshold)
        if box is None:
            assert not masks[n].any()
            continue
        top, left, bottom, right = box
        np.testing.assert_array_equal(maps.cut(n, box), whole[n, top:bottom, left:right])
        assert masks[n].sum() == masks[n, top:bottom, left:right].sum()


@pytest.mark.parametrize("threshold", [n / 10 for n in range(1, 10)])
def test_a_value_at_the_threshold_is_not_above_it(threshold):
    """Thresholds are rounded to float32, as the maps are; the next larger number is above."""
    maps = np.full((2, 5, 4), np.float32(threshold))
    maps[1, 2, 1:3] = np.nextafter(np.float32(threshold), np.float32(1))
    made = SourceMaps.of(maps)
    assert np.argwhere(made.above([threshold, threshold])).tolist() == [[1, 2, 1], [1, 2, 2]]
    assert made.extent(0, threshold) is None
    assert made.extent(1, threshold) == (2, 1, 3, 3)


def test_maps_of_the_source_are_themselves():
    maps = np.random.default_rng(0).random((3, 7, 5), np.float32)
    made = SourceMaps.of(maps)
    assert made.shape == (3, 7, 5)
    np.testing.assert_array_equal(made.whole(), maps)
    np.testing.assert_array_equal(made.cut(1, (2, 1, 6, 4)), maps[1, 2:6, 1:4])


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_extent_is_no_more_than_a_cell_too_large(mirrored):
    grid = np.zeros((1, ROWS // 4, COLUMNS // 4), np.float32)
    grid[0, 10:13, 20:24] = 1
    made = SourceMaps.of(np.zeros((1, 300, 200), np.float32)).placement
    placement = type(made)(**{**vars(made), "mirrored": mirrored, "row_shift": 2})
    box = SourceMaps(grid=grid, cell=4, placement=placement).extent(0, 0.5)
    assert box == ((42, 104, 54, 120) if mirrored else (42, 80, 54, 96))


def test_maps_of_a_source_larger_than_the_networks_window_are_seen_whole():
    maps = np.zeros((1, ROWS + 300, COLUMNS + 200), np.float32)
    maps[0, ROWS + 250, COLUMNS + 150] = 1
    assert SourceMaps.of(maps).extent(0, 0.5) == (ROWS + 250, COLUMNS + 150, ROWS + 251, COLUMNS + 151)


@settings(max_examples=100)
@given(placement=placements(most=120, window=WINDOW), share=st.floats(0.05, 1), cell=st.sampled_from([1, 4, 16]))
def test_a_sample_shows_what_lies_under_its_pixels_centres(placement, share, cell):
    grid = np.random.default_rng(0).uniform(0.1, 1, (2, WINDOW[0] // cell, WINDOW[1] // cell)).astype(np.float32)
    shape = tuple(max(1, round(n * share)) for n in placement.source_shape)
    sample = SourceMaps(grid=grid, cell=cell, placement=placement).sample(shape)
    assert (sample.dtype, sample.shape) == (np.float32, (2, *shape))
    rows, columns = (
        (2 * np.arange(n) + 1) * full // (2 * n) for n, full in zip(shape, placement.source_shape, strict=True)
    )
    for i, j in itertools.product(range(0, shape[0], 5), range(0, shape[1], 5)):
        at = point_to_network(placement, (int(rows[i]), int(columns[j])))
        expected = (0, 0) if at is None else grid[:, at[0] // cell, at[1] // cell]
        np.testing.assert_array_equal(sample[:, i, j], expected)

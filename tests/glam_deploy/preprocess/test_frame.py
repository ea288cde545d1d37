"""The way back: a bright pixel of the source, found in the network's input, must land where it came from."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.placements import placements

from glam_deploy.errors import UsageError
from glam_deploy.networks import GLAM
from glam_deploy.preprocess import (
    box_to_source,
    map_to_network,
    map_to_source,
    point_to_network,
    point_to_source,
    prepare,
)
from glam_deploy.preprocess.frame import half_turned

from . import scenes

ROWS, COLUMNS = GLAM.input_shape
WINDOW = (24, 16)
"""A network frame in which every pixel can be compared; `placements` puts it anywhere over its small crops."""
SIZES = [(700, 500), (1301, 1003), (3400, 1500), (2200, 2600), (3601, 2801)]
"""Smaller than the window, larger in one direction, in the other, in both."""


@st.composite
def cases(draw):
    size = draw(st.sampled_from(SIZES))
    pixels = scenes.tissue(*size, reach=draw(st.sampled_from([0.7, 0.99])), height=draw(st.sampled_from([0.4, 0.55])))
    view, flip = draw(st.sampled_from(scenes.FLIPS))
    row, column = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
    sample = scenes.mammogram(pixels, view, horizontal_flip=flip, half_turn=draw(st.booleans()))
    sample.pixels[row, column] = 60000
    return sample, (row, column)


@pytest.mark.slow
@settings(max_examples=30)
@given(case=cases())
def test_a_bright_pixel_comes_back_to_its_place(case):
    sample, point = case
    made = prepare(sample)
    seen_at = point_to_network(made.placement, point)
    brightest = np.argwhere(made.image == made.image.max())
    if seen_at is None:
        assert len(brightest) > 1, "the bright pixel is in the input, and the way back denies it"
        return
    assert brightest.tolist() == [list(seen_at)]
    assert point_to_source(made.placement, seen_at) == point
    r, c = seen_at
    assert box_to_source(made.placement, (r, c, r + 1, c + 1)) == (*point, point[0] + 1, point[1] + 1)
    maps = np.zeros((1, ROWS, COLUMNS), np.float32)
    maps[0, r, c] = 1
    back = map_to_source(made.placement, maps)
    assert back.shape == (1, *sample.pixels.shape)
    assert np.argwhere(back[0]).tolist() == [list(point)]


def by_definition(placement, row, column):
    """The sentence that defines Placement, one pixel at a time."""
    top, bottom, left, right = placement.crop_window
    r, c = row + placement.row_shift, column + placement.column_shift
    rows, columns = placement.network_shape
    if not (0 <= row < rows and 0 <= column < columns and 0 <= r < bottom - top and 0 <= c < right - left):
        return None
    if placement.mirrored:
        c = right - left - 1 - c
    return (bottom - 1 - r, right - 1 - c) if placement.half_turn else (top + r, left + c)


@settings(max_examples=200)
@given(placement=placements(most=40, window=WINDOW))
def test_points_follow_the_definition(placement):
    """All of them, and those around the network frame."""
    for point in product(range(-2, WINDOW[0] + 2), range(-2, WINDOW[1] + 2)):
        expected = by_definition(placement, *point)
        assert point_to_source(placement, point) == expected
        if expected is not None:
            assert point_to_network(placement, expected) == point


@settings(max_examples=100)
@given(placement=placements(most=40, window=WINDOW))
def test_the_turned_image_has_every_pixel_at_the_opposite_place(placement):
    turned, (rows, columns) = half_turned(placement), placement.source_shape
    for point in np.ndindex(WINDOW):
        there = by_definition(placement, *point)
        assert by_definition(turned, *point) == (there and (rows - 1 - there[0], columns - 1 - there[1]))
    assert half_turned(turned) == placement


@settings(max_examples=400)
@given(placement=placements(most=40, window=WINDOW), data=st.data())
def test_a_box_covers_the_source_pixels_of_its_own_pixels(placement, data):
    top, left = data.draw(st.integers(-3, WINDOW[0])), data.draw(st.integers(-3, WINDOW[1]))
    box = (top, left, top + data.draw(st.integers(0, 9)), left + data.draw(st.integers(0, 9)))
    pixels = {by_definition(placement, r, c) for r in range(box[0], box[2]) for c in range(box[1], box[3])} - {None}
    found = box_to_source(placement, box)
    covered = set() if found is None else {(r, c) for r in range(found[0], found[2]) for c in range(found[1], found[3])}
    assert covered == pixels and (found is None) == (not pixels)


@settings(max_examples=200)
@given(placement=placements(most=40, window=WINDOW))
def test_maps_agree_with_points_everywhere(placement):
    rows, columns = np.indices(WINDOW, dtype=np.float32)
    back = map_to_source(placement, np.stack([rows + 1, columns + 1]))
    assert back.dtype == np.float32
    for r in range(placement.source_shape[0]):
        for c in range(placement.source_shape[1]):
            expected = point_to_network(placement, (r, c)) or (-1, -1)
            assert tuple(back[:, r, c] - 1) == expected


@settings(max_examples=100)
@given(placement=placements(most=40, window=WINDOW))
def test_masks_agree_with_points_everywhere(placement):
    """Every source pixel has a number of its own; where it is in the network frame, it is at its point there."""
    shape = placement.source_shape
    numbers = np.arange(1, 1 + shape[0] * shape[1]).reshape(shape)
    found = map_to_network(placement, numbers)
    assert (found.shape, found.dtype) == (WINDOW, numbers.dtype)
    points = {(r, c): point_to_network(placement, (r, c)) for r in range(shape[0]) for c in range(shape[1])}
    placed = {numbers[source]: point for source, point in points.items() if point}
    assert {found[point]: point for point in zip(*np.nonzero(found), strict=True)} == placed


def test_maps_of_another_size_are_refused():
    made = prepare(scenes.mammogram(scenes.tissue(700, 500)))
    with pytest.raises(UsageError, match=r"\(2, 184, 120\)"):
        map_to_source(made.placement, np.zeros((2, 184, 120), np.float32))
    with pytest.raises(UsageError, match=r"\(184, 120\); expected that of the source image"):
        map_to_network(made.placement, np.zeros((184, 120), bool))

"""Crop, points, centre and window of small scenes against the slow oracle, with a small window."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from glam_deploy.preprocess import frame
from glam_deploy.preprocess.foreground import bordered_mask, find_breast
from glam_deploy.preprocess.window import best_center, crop_box, crop_facts, window_shift
from glam_deploy.records import CropFacts, Placement

from . import slow

N, BUFFER = 2, 3
SIZE = (12, 8)


@st.composite
def scenes(draw):
    """A lumpy breast at the left edge, with stray pixels; every value is its own, so that a place shows."""
    rows, columns = draw(st.integers(8, 34)), draw(st.integers(8, 26))
    mask = np.zeros((rows, columns), bool)
    for _ in range(draw(st.integers(1, 4))):
        top, reach = draw(st.integers(0, rows - 6)), draw(st.integers(6, columns))
        mask[top : top + draw(st.integers(6, rows)), draw(st.integers(0, 2)) : reach] = True
    for _ in range(draw(st.integers(0, 5))):
        mask[draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))] ^= True
    return np.where(mask, 1 + np.arange(rows * columns).reshape(rows, columns), 0).astype(np.uint16)


def fast(pixels, *, faces_left, is_mlo):
    width = pixels.shape[1]
    stored = find_breast(bordered_mask(pixels), N)
    breast = stored.mirrored(width) if faces_left else stored
    upright = pixels[:, ::-1] if faces_left else pixels
    box = crop_box(breast, pixels.shape, BUFFER)
    facts = crop_facts(breast, box, faces_left=faces_left)
    tissue = upright[box[0] : box[2], box[1] : box[3]] > 0
    center = best_center(tissue, facts, is_mlo=is_mlo, window=SIZE)
    shift = window_shift(center, tissue.shape, is_mlo=is_mlo, window=SIZE)
    left, right = (width - box[3], width - box[1]) if faces_left else (box[1], box[3])
    placement = Placement(
        source_shape=pixels.shape,
        crop_window=(box[0], box[2], left, right),
        mirrored=faces_left,
        row_shift=shift[0],
        column_shift=shift[1],
        best_center=center,
        network_shape=SIZE,
    )
    return placement, facts


def cut(pixels, placement):
    part = frame.seen(placement)
    top, left, bottom, right = part.network
    window = np.zeros(SIZE, pixels.dtype)
    window[top:bottom, left:right] = part.read(pixels)
    return window


@settings(max_examples=150)
@given(pixels=scenes(), faces_left=st.booleans(), is_mlo=st.booleans())
def test_same_window_as_the_published_steps(pixels, faces_left, is_mlo):
    pixels = np.ascontiguousarray(pixels[:, ::-1]) if faces_left else pixels
    if slow.breast_mask(pixels > 0, N) is None:
        return
    expected = slow.preprocess(pixels, faces_left=faces_left, is_mlo=is_mlo, n=N, buffer=BUFFER, size=SIZE)
    placement, facts = fast(pixels, faces_left=faces_left, is_mlo=is_mlo)
    assert placement.crop_window == expected.crop_window
    assert facts.distance_from_starting_side == expected.distance
    assert facts.rightmost_points == expected.rightmost
    assert facts.bottommost_points == expected.bottommost
    assert placement.best_center == expected.best_center
    np.testing.assert_array_equal(cut(pixels, placement), expected.window)


@st.composite
def crops(draw):
    """Any pixels above 0, some in the lowest row of a breast among them, and the outermost column of the breast."""
    rows, columns = draw(st.integers(1, 19)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    tissue = rng.random((rows, columns)) < draw(st.sampled_from([0.2, 0.5, 0.9]))
    lowest, outermost = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns))
    tissue[lowest, -1] = True
    return tissue, ((0, 0), outermost), (lowest, (0, 0))


@settings(max_examples=400)
@given(crop=crops(), is_mlo=st.booleans(), size=st.sampled_from([SIZE, (4, 6), (6, 4)]))
def test_best_centre_of_any_pixels(crop, is_mlo, size):
    """Where windows tie that are not neighbours, and where the window leaves the crop, which few breasts have."""
    tissue, rightmost, bottommost = crop
    facts = CropFacts(distance_from_starting_side=0, rightmost_points=rightmost, bottommost_points=bottommost)
    expected = slow._center(tissue, rightmost[1], bottommost[0], is_mlo=is_mlo, size=size)
    assert best_center(tissue, facts, is_mlo=is_mlo, window=size) == expected


def filled(*per_row):
    """bool [rows, 5]: so many pixels above 0 in each row, from the left."""
    return np.arange(5) < np.array(per_row)[:, None]


def cc_center(tissue, rightmost):
    facts = CropFacts(
        distance_from_starting_side=0, rightmost_points=((0, 0), rightmost), bottommost_points=(0, (0, 0))
    )
    return best_center(tissue, facts, is_mlo=False, window=(4, 6))[0]


def test_the_upper_of_two_windows_as_near_to_the_middle():
    """Rows 0 to 3 and 2 to 5 hold 14 pixels, rows 1 to 4 hold 12; the middle of 7 rows is row 3."""
    assert cc_center(filled(3, 1, 5, 5, 1, 3, 0), 6) == 2


def test_every_column_from_the_first_to_the_outermost_point_counts():
    lower = filled(0, 0, 0, 0, 0, 0, 1, 1, 1, 1)
    assert cc_center(lower, 2) == 8
    assert cc_center(lower, 1) == 5, "no column lies before the outermost point: the middle"


def test_a_window_stays_inside_a_larger_crop_wherever_its_centre_is():
    for is_mlo in (False, True):
        for center, shift in (((99, 99), (8, 7)), ((-99, -99), (0, 0)), ((9, 6), (3, 2)), ((14, 11), (8, 7))):
            assert window_shift(center, (20, 15), is_mlo=is_mlo, window=SIZE) == shift


def test_a_crop_of_the_windows_size_is_the_window():
    for is_mlo in (False, True):
        assert window_shift((99, -99), SIZE, is_mlo=is_mlo, window=SIZE) == (0, 0)

"""Crop, points, centre and window of small scenes against the slow oracle, with a small window."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from glam_deploy.preprocess import frame
from glam_deploy.preprocess.foreground import bordered_mask, find_breast
from glam_deploy.preprocess.window import best_center, crop_box, crop_facts, window_shift
from glam_deploy.records import Placement

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

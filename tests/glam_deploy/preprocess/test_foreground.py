import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from glam_deploy.errors import InputError
from glam_deploy.preprocess.foreground import _labels, _largest_component, _touching, bordered_mask, find_breast

from . import slow


def rows_of(mask):
    """(first row, first columns, end columns) of a mask."""
    top, _, bottom, _ = slow.box_of(mask)
    left = [int(np.flatnonzero(row)[0]) for row in mask[top:bottom]]
    right = [int(np.flatnonzero(row)[-1]) + 1 for row in mask[top:bottom]]
    return top, left, right


@st.composite
def blobs(draw):
    """A mask of a few rectangles with some specks set and cleared."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    mask = np.zeros(shape, bool)
    for _ in range(draw(st.integers(0, 5))):
        r, c = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        mask[r : r + draw(st.integers(1, 25)), c : c + draw(st.integers(1, 25))] = True
    specks = draw(st.lists(st.tuples(st.integers(0, shape[0] - 1), st.integers(0, shape[1] - 1)), max_size=6))
    for speck in specks:
        mask[speck] = not mask[speck]
    return mask


@settings(max_examples=300)
@given(mask=blobs(), n=st.integers(1, 5))
def test_breast_is_what_erosions_and_dilations_leave(mask, n):
    expected = slow.breast_mask(mask, n)
    bordered = bordered_mask(mask.astype(np.uint16))
    if expected is None:
        with pytest.raises(InputError, match=f"remains after {n} erosions"):
            find_breast(bordered, n)
        return
    found = find_breast(bordered, n)
    assert (found.top, found.left.tolist(), found.right.tolist()) == rows_of(expected)
    assert found.box == slow.box_of(expected)
    flipped = found.mirrored(mask.shape[1])
    assert (flipped.top, flipped.left.tolist(), flipped.right.tolist()) == rows_of(expected[:, ::-1])


@settings(max_examples=200)
@given(mask=arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_largest_component_among_runs(mask):
    padded = np.pad(mask, 1)
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return
    kept = _largest_component(starts, ends, padded.shape[1])
    drawn = np.zeros(flat.shape, bool)
    for start, end in zip(starts[kept], ends[kept], strict=True):
        drawn[start:end] = True
    labels, _ = ndimage.label(padded)
    expected = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    np.testing.assert_array_equal(drawn.reshape(padded.shape), expected)


def test_a_spiral_is_one_component():
    """The longest way a label can have to go in few rows."""
    mask = np.zeros((101, 101), bool)
    for i in range(0, 50, 2):
        mask[i, max(0, i - 2) : 101 - i] = mask[100 - i, i : 101 - i] = True
        mask[i : 101 - i, 100 - i] = mask[i + 2 : 101 - i, i] = True
    flat = np.pad(mask, 1).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    labels = _labels(len(edges) // 2, *_touching(edges[::2], edges[1::2], 103))
    assert len(set(labels.tolist())) == ndimage.label(mask)[1] == 1


def test_no_index_is_wrapped_where_the_breast_fills_the_image():
    found = find_breast(bordered_mask(np.ones((30, 20), np.uint8)), 4)
    expected = slow.breast_mask(np.ones((30, 20), bool), 4)
    assert (found.top, found.left.tolist(), found.right.tolist()) == rows_of(expected)

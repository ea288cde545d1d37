"""Every sampled pixel is the one that its description names, one pixel at a time."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glam_deploy.preprocess.foreground import Breast
from glam_deploy.preprocess.samples import BEYOND, DEPTH, Samples, grid_step, outline_rows, take
from glam_deploy.records import Pixels


@st.composite
def views(draw: st.DrawFn) -> tuple[Pixels, Breast]:
    """Pixels that are numbered, and a breast whose rows end anywhere in them."""
    rows, columns = draw(st.sampled_from([(40, 30), (70, 1090), (650, 60), (1100, 150), (1650, 40)]))
    top, left = draw(st.sampled_from([0, 1, 9, rows // 2 - 1])), draw(st.sampled_from([0, 1, 8, columns // 2 - 1]))
    bottom, right = draw(st.integers(rows - 9, rows)), draw(st.integers(columns - 9, columns))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    starts, ends = rng.integers(left, left + 5, bottom - top), rng.integers(right - 5, right, bottom - top) + 1
    starts[rng.integers(len(starts))], ends[rng.integers(len(ends))] = left, right
    return np.arange(rows * columns, dtype=np.float32).reshape(rows, columns), Breast(top=top, left=starts, right=ends)


@settings(max_examples=60)
@given(view=views())
def test_each_sample_is_the_pixel_that_its_description_names(view: tuple[Pixels, Breast]) -> None:
    pixels, breast = view
    (rows, columns), taken = pixels.shape, take(pixels, breast)
    top, left, bottom, right = breast.box
    step, whole = max(1, max(bottom - top, right - left) // 512), max(1, max(rows, columns) // 512)
    parts: tuple[tuple[str, range, range], ...] = (
        ("grid", range(top, bottom, step), range(left, right, step)),
        ("row_lines", range(rows), range(left, right, 32)),
        ("whole", range(0, rows, whole), range(0, columns, whole)),
        ("beside", range(top, bottom, 8), range(0, columns, 8)),
    )
    for name, down, across in parts:
        expected = [[r * columns + c for c in across] for r in down]
        np.testing.assert_array_equal(getattr(taken, name), expected, name)
        assert getattr(taken, name).flags.c_contiguous
    expected = [[r * columns + c for r in range(top, bottom, 32)] for c in range(columns)]
    np.testing.assert_array_equal(taken.column_lines, expected)
    assert taken.column_lines.flags.c_contiguous


@settings(max_examples=30)
@given(view=views())
def test_the_outline_is_sampled_from_outside_inwards(view: tuple[Pixels, Breast]) -> None:
    pixels, breast = view
    columns, outline = pixels.shape[1], take(pixels, breast).outline
    at = range(0, len(breast.right), max(1, len(breast.right) // 300))
    assert outline_rows(breast).tolist() == list(at)
    assert outline.shape == (len(at), BEYOND + DEPTH + 2)
    for (i, row), j in product(enumerate(at), range(outline.shape[1])):
        column = breast.right[row] + BEYOND - j
        assert outline[i, j] == (0 if column >= columns else pixels[row + breast.top, max(0, column)])


def test_the_edges_of_the_image() -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    taken: Samples = take(pixels, Breast(top=1, left=np.array([0]), right=np.array([2])))
    assert taken.shape == (3, 4)
    edges = taken.first_row, taken.last_row, taken.first_column, taken.last_column
    assert [edge.tolist() for edge in edges] == [[0, 1, 2, 3], [8, 9, 10, 11], [0, 4, 8], [3, 7, 11]]
    assert taken.border.tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 3, 7, 11]
    assert taken.outline.dtype == pixels.dtype


@pytest.mark.parametrize(
    ("shape", "step"), [((1, 1), 1), ((511, 3), 1), ((3, 1023), 1), ((1024, 3), 2), ((700, 1536), 3), ((1535, 512), 2)]
)
def test_a_grid_has_about_512_points_along_its_longer_side(shape: tuple[int, int], step: int) -> None:
    assert grid_step(*shape) == step

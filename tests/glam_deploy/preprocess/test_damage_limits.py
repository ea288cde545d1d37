"""The limits of the damage detection, reached and missed by one: lines and breasts that are counted by hand."""

import numpy as np
import pytest

from glam_deploy.preprocess.damage import drawing, examine, is_upside_down, is_wrapped, lost_lines
from glam_deploy.preprocess.foreground import Breast
from glam_deploy.preprocess.prepare import locate
from glam_deploy.preprocess.surroundings import Sampled
from glam_deploy.records import Mammogram, Pixels, Source, View

from . import views


def content(lines: int, samples: int = 20) -> Pixels:
    """Lines in which all values differ."""
    return np.arange(500, 500 + lines * samples, dtype=np.uint16).reshape(lines, samples)


def runs(lines: Pixels) -> list[tuple[int, int, float | None]]:
    found = list(lost_lines(lines, 1))
    assert all(run.axis == 1 for run in found)
    return [(run.first, run.last, run.value) for run in found]


@pytest.mark.parametrize(
    ("samples", "filled", "lost"), [(20, 8, True), (20, 7, False), (100, 10, True), (100, 9, False)]
)
def test_a_line_shows_the_breast_from_8_samples_and_a_tenth_on(samples: int, filled: int, lost: bool) -> None:
    lines = content(6, samples)
    lines[3] = np.arange(samples) < filled
    assert runs(lines) == ([(3, 3, 1)] if lost else [])


@pytest.mark.parametrize(
    ("first", "end", "lost"),
    [(0, 1, False), (1, 2, True), (1, 5, True), (24, 25, True), (24, 26, False), (0, 26, False)],
)
@pytest.mark.parametrize("value", [0, 700])
def test_a_lost_line_lies_between_lines_that_show_the_breast(first: int, end: int, lost: bool, value: int) -> None:
    lines = content(26)
    lines[first:end] = value
    assert runs(lines) == ([(first, end - 1, value)] if lost else [])


@pytest.mark.parametrize(("even", "lost"), [(4, [(1, 4, 700)]), (5, [])])
def test_an_image_of_which_most_lines_have_one_value_is_a_drawing(even: int, lost: list[tuple[int, int, int]]) -> None:
    lines = content(8)
    lines[1 : 1 + even] = 700
    assert runs(lines) == lost


@pytest.mark.parametrize(("total", "lost"), [(14, [(3, 9, None)]), (13, [])])
def test_an_image_of_which_most_lines_repeat_each_other_is_a_drawing(
    total: int, lost: list[tuple[int, int, None]]
) -> None:
    lines = content(total)
    lines[2:10] = lines[2]
    assert runs(lines) == lost


@pytest.mark.parametrize(("equal", "lost"), [(8, [(6, 12, None)]), (7, [])])
def test_eight_lines_with_the_same_values_are_no_image(equal: int, lost: list[tuple[int, int, None]]) -> None:
    lines = content(20)
    lines[5 : 5 + equal] = lines[5]
    assert runs(lines) == lost


def test_an_empty_line_beside_a_line_of_one_value_is_not_between_two_of_the_breast() -> None:
    lines = content(8)
    lines[3], lines[4] = 700, 0
    assert runs(lines) == []


@pytest.mark.parametrize(("filled", "lost"), [(16, [(3, 3, 0)]), (15, [])])
def test_the_lines_beside_a_lost_one_show_the_same_part(filled: int, lost: list[tuple[int, int, int]]) -> None:
    """They have four fifths in common."""
    lines = content(6)
    lines[2, filled:] = 0
    lines[3] = 0
    assert runs(lines) == lost


# the cyclic shift

COUNT = 1000
WAVE = 1000 + 300 * np.sin(np.arange(COUNT) / 100)
"""Mean deviation 190."""
GAP = np.full((6, 100), 1000.0)
"""Sampled lines of an image whose fourth one is empty."""
GAP[3] = 0


def line(values: Pixels, filled: int = 800) -> Pixels:
    return np.where(np.arange(len(values)) < filled, values, 0)


@pytest.mark.parametrize(
    ("axis", "filled", "wrapped"),
    [(0, 100, True), (0, 99, False), (0, 900, True), (0, 901, False), (1, 901, True), (1, 1000, True)],
)
def test_the_first_and_the_last_line_cross_the_breast(axis: int, filled: int, wrapped: bool) -> None:
    assert is_wrapped(line(WAVE, filled), line(1.02 * WAVE, filled), GAP, axis) is wrapped


@pytest.mark.parametrize(("filled", "wrapped"), [(800, True), (799, False)])
def test_the_first_and_the_last_line_show_the_same_part(filled: int, wrapped: bool) -> None:
    first, last = line(WAVE, filled), line(1.02 * WAVE, 1000)
    assert is_wrapped(first, last, GAP, 0) is is_wrapped(last, first, GAP, 0) is wrapped


@pytest.mark.parametrize(
    ("last", "wrapped"),
    [(WAVE, False), (1.05 * WAVE, True), (1.07 * WAVE, False), (0.95 * WAVE, True), (0.93 * WAVE, False)],
)
@pytest.mark.parametrize("scale", [1, 0.0005])
def test_neighbouring_lines_differ_by_up_to_6_percent(last: Pixels, wrapped: bool, scale: float) -> None:
    """But two equal lines are no neighbours in an image."""
    assert is_wrapped(line(scale * WAVE), line(scale * last), GAP, 0) is wrapped


@pytest.mark.parametrize(("added", "wrapped"), [(5, True), (10, False)])
def test_neighbouring_lines_differ_less_than_their_values(added: float, wrapped: bool) -> None:
    """By half of their mean deviation, which is 13 here."""
    flat = 1000 + (WAVE - 1000) / 15
    assert is_wrapped(flat, flat + added, GAP, 1) is wrapped


def test_a_pattern_of_31_pixels_is_smoothed_away() -> None:
    at = np.arange(3100)
    smooth, pattern = 1000 + 60 * np.sin(at / 200), 600 * np.sin(2 * np.pi * at / 31)
    assert is_wrapped(smooth + pattern, smooth + 10 - pattern, GAP, 1)


def narrowing(least: int) -> Pixels:
    """Lines of 1000 samples: each has at least 85 % of the tissue of the one before, down to `least` samples."""
    filled = [1000]
    while filled[-1] > least:
        filled.append(max(least, -(-filled[-1] * 85 // 100)))
    return np.stack([line(np.full(COUNT, 700.0), count) for count in filled])


EVEN = np.full((4, 100), 1000.0)
INTERRUPTED = {
    "an empty line": (GAP, True),
    "no line": (EVEN, False),
    "2 % of the line": (narrowing(20), True),
    "more than 2 %": (narrowing(21), False),
    "a step of a quarter": (np.repeat([[1000.0], [800]], 100, axis=1), False),
    "a larger step": (np.repeat([[1000.0], [799]], 100, axis=1), True),
    "a larger step of small values": (np.repeat([[0.1], [0.0799]], 100, axis=1), True),
    "nothing in the first line": (np.concatenate([0 * EVEN, EVEN]), False),
}


@pytest.mark.parametrize(("lines", "interrupted"), INTERRUPTED.values(), ids=INTERRUPTED)
def test_a_shift_interrupts_the_breast(lines: Pixels, interrupted: bool) -> None:
    assert is_wrapped(line(WAVE), line(1.02 * WAVE), lines, 0) is interrupted


def test_what_lies_beside_the_first_line_interrupts_nothing() -> None:
    lines = np.full((6, 100), 1000.0)
    lines[0, :50], lines[3, :50] = 0, 5000
    assert not is_wrapped(line(WAVE), line(1.02 * WAVE), lines, 0)
    lines[0, :50] = 0.5
    assert is_wrapped(line(WAVE), line(1.02 * WAVE), lines, 0)


# the upper side, and values


def outline(top: int, upper: int, lower: int, rows: int, *, left: int = 7) -> Breast:
    """A breast of 100 columns; `upper`, `lower`: columns of its first and last fiftieth of the rows of the image."""
    right = np.full(rows - top, 100)
    few = max(1, rows // 50)
    right[:few], right[-few:] = upper, lower
    return Breast(top=top, left=np.full(len(right), left), right=right + left)


@pytest.mark.parametrize("rows", [10, 100, 200])
@pytest.mark.parametrize(
    ("above", "upper", "lower", "upside_down"),
    [(0, 20, 51, True), (0, 20, 50, False), (1, 10, 11, True), (1, 10, 10, False), (0, 10, 11, False)],
)
def test_a_breast_at_the_lower_edge_is_upside_down(
    rows: int, above: int, upper: int, lower: int, upside_down: bool
) -> None:
    """If it is 0.3 of its columns wider there, or `above` a fiftieth of the rows is empty and a tenth wide below."""
    breast = outline(max(1, rows // 50) + above, upper, lower, rows)
    assert is_upside_down(breast, rows) is upside_down
    assert not is_upside_down(breast, rows + 1)


def test_the_ends_of_a_breast_are_a_fiftieth_of_the_rows() -> None:
    breast = outline(0, 20, 80, 100)
    assert is_upside_down(breast, 100)
    breast.right[1], breast.right[-2] = breast.right[1] + 60, breast.right[-2] - 60
    assert not is_upside_down(breast, 100)
    small = outline(0, 20, 80, 40)
    small.right[1], small.right[-2] = small.right[1] + 60, small.right[-2] - 60
    assert is_upside_down(small, 40), "one row at least"


def of_values(values: Pixels) -> Sampled:
    return Sampled(values=values[None], inside=np.ones((1, len(values)), np.bool_), level=float(values.max()))


@pytest.mark.parametrize(("different", "share"), [(50, "2 %"), (51, None), (49, "2 %"), (10, "10 %")])
def test_tissue_is_clipped_where_a_fiftieth_has_its_highest_value(different: int, share: str | None) -> None:
    sample = views.stored(views.sound(11))
    located = locate(sample)
    values = of_values(np.arange(1, 1 + different, dtype=np.uint16))
    notices = examine(located.samples, located.breast, values, sample)
    assert [(each.code, each.message.split(" of")[0]) for each in notices] == ([("saturated", share)] if share else [])


def test_the_four_most_common_values_of_a_drawing_are_told() -> None:
    values = np.repeat(np.array([10, 900, 30, 40, 50], np.uint16), [50, 40, 1, 20, 30])
    sample = Mammogram(pixels=values[None], view=View.L_CC, source=Source(name="a.png", kind="png"))
    (notice,) = drawing(of_values(values), sample)
    assert notice.code == "few-values"
    assert "have one of these values: 10, 40, 50, 900. The" in notice.message
    assert drawing(of_values(values), Mammogram(pixels=values[None], view=View.L_CC)) == []

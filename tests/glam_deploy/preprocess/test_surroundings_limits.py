"""The measurements around the breast: their limits by hand, and their masks against scipy and plain loops."""

import numpy as np
import pytest

from glam_deploy.preprocess import surroundings
from glam_deploy.preprocess.foreground import Breast, Mask
from glam_deploy.preprocess.samples import take
from glam_deploy.preprocess.surroundings import Layer, Sampled
from glam_deploy.records import Pixels

ndimage = pytest.importorskip("scipy.ndimage")


def sampled(values: object, inside: object = True, level: float = 1000) -> Sampled:
    grid = np.atleast_2d(np.asarray(values, np.float32))
    return Sampled(values=grid, inside=np.broadcast_to(inside, grid.shape).copy(), level=level)


def layer_of(low: float, high: float) -> Layer:
    return Layer(share=0.5, low=low, high=high, least=low, most=high)


def breast_of(right: list[int], left: int = 0, top: int = 5) -> Breast:
    return Breast(top=top, left=np.full(len(right), left), right=np.array(right) + left)


def blob(rows: int, columns: int, seed: int = 1) -> tuple[Pixels, Breast]:
    """Noise from 0 to 40 everywhere, and a breast of another extent in each row."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 40, (rows + 9, columns)).astype(np.uint16)
    left, right = rng.integers(3, 9, rows), rng.integers(columns // 2, columns - 4, rows)
    return pixels, Breast(top=4, left=left, right=right)


# the foreground on its grid


@pytest.mark.parametrize(("rows", "step"), [(60, 1), (1023, 1), (1024, 2)])
def test_the_foreground_is_what_is_above_0_in_the_breast(rows: int, step: int) -> None:
    pixels, breast = blob(rows, 50)
    found = surroundings.sampled_foreground(take(pixels, breast), breast)
    _, left, _, right = breast.box
    expected = [
        [
            breast.left[row] <= column < breast.right[row] and pixels[4 + row, column] > 0
            for column in range(left, right, step)
        ]
        for row in range(0, rows, step)
    ]
    np.testing.assert_array_equal(found.inside, expected)
    np.testing.assert_array_equal(found.values, pixels[4 : 4 + rows : step, left:right:step])
    assert found.level == np.percentile(found.values[np.array(expected)], 95)


@pytest.mark.parametrize(
    ("counts", "few"), [([96, 1, 1, 1, 1], True), ([95, 1, 1, 1, 1, 1], False), ([20] * 5, False), ([25] * 4, True)]
)
def test_four_values_fill_a_mask_to_99_percent(counts: list[int], few: bool) -> None:
    values = np.repeat(np.arange(1, 1 + len(counts)), counts)
    assert surroundings.has_few_values(sampled(values)) is few
    assert surroundings.has_few_values(sampled([*values, *range(50)], [True] * 100 + [False] * 50)) is few


@pytest.mark.parametrize(("count", "few"), [(8191, False), (8192, True)])
def test_the_values_of_a_mask_are_counted_in_4096_pixels(count: int, few: bool) -> None:
    values = np.arange(1, 1 + count)
    values[::2] = 5
    assert surroundings.has_few_values(sampled(values)) is few


def test_the_grid_follows_from_the_columns_of_the_breast() -> None:
    """From 1024 on, each second one; here they are 1023, from column 5 on."""
    pixels = np.ones((40, 1040), np.uint16)
    breast = Breast(top=0, left=np.full(40, 5), right=np.full(40, 1028))
    found = surroundings.sampled_foreground(take(pixels, breast), breast)
    assert found.inside.shape == (40, 1023)
    assert found.inside.all()


# layers


def extent(values: dict[int, int], low: float, high: float) -> tuple[float, float]:
    return surroundings.extent(np.repeat(list(values), list(values.values())), low, high)


def test_a_background_extends_to_the_first_rare_value() -> None:
    """Rare is less than a hundredth of the mean count between: less than 4 here."""
    assert extent({10: 90, 11: 3, 12: 4, 20: 400, 21: 400, 22: 4, 23: 3, 24: 90}, 20, 21) == (12, 22)
    assert extent({10: 90, 12: 4, 20: 400, 21: 400, 22: 4, 24: 90}, 20, 21) == (10, 24)
    assert extent({19: 90, 20: 1, 21: 900, 22: 1, 23: 90}, 20, 22) == (19, 23)
    assert extent({3: 5, 20: 400, 30: 5}, 20.5, 20.6) == (20.5, 20.6)
    assert extent({3: 5, 20: 500, 30: 5}, 20, 20) == (3, 30)


def test_a_layer_is_described_by_its_values() -> None:
    rng = np.random.default_rng(3)
    grid = sampled(rng.integers(100, 400, (40, 50)), rng.random((40, 50)) < 0.8)
    where = grid.inside & (rng.random((40, 50)) < 0.5)
    found, values = surroundings.layer(grid, where), sorted(grid.values[where].tolist())
    assert found.share == pytest.approx(np.mean(where) / np.mean(grid.inside))
    assert (found.low, found.high) == pytest.approx(np.percentile(values, [10, 90]))
    assert (found.least, found.most) == surroundings.extent(grid.values[where], found.low, found.high)
    assert surroundings.layer(grid, where & False) == Layer(share=0, low=0, high=0, least=0, most=0)


def eroded_and_dilated(mask: Mask, radius: int) -> Mask:
    return ndimage.binary_dilation(ndimage.binary_erosion(mask, iterations=radius), iterations=radius)


@pytest.mark.parametrize(("columns", "radius"), [(99, 2), (149, 2), (150, 3)])
def test_a_dark_layer_is_what_a_diamond_fits_into(columns: int, radius: int) -> None:
    """At most a tenth of the level of tissue; beyond the grid is none."""
    rng = np.random.default_rng(4)
    coarse = ndimage.zoom(rng.random((12, columns // 5)), (5, 5), order=1)[:60, :columns]
    values = np.zeros((60, columns))
    values[: coarse.shape[0], : coarse.shape[1]] = np.where(coarse > 0.45, 100, 101)
    grid = sampled(values, rng.random((60, columns)) < 0.995)
    dark = eroded_and_dilated(grid.inside & (grid.values <= 100), radius)
    assert 0.05 < np.mean(dark) < 0.9
    assert surroundings.dark_layer(grid) == surroundings.layer(grid, dark)


@pytest.mark.parametrize(("columns", "depth"), [(30, 2), (59, 2), (60, 3)])
def test_the_outer_layer_is_a_twentieth_of_the_columns_deep(columns: int, depth: int) -> None:
    """All around but at the chest wall."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:50, 0:columns]
    inside = ((y - 24) / 26) ** 2 + (x / columns) ** 2 < 1
    inside[10:20, 0], inside[30:34, 1] = False, False
    grid = sampled(rng.integers(1, 999, inside.shape), inside)
    beyond = np.pad(np.pad(inside, ((0, 0), (9, 0)), mode="edge"), ((1, 1), (0, 1)))
    distance = ndimage.distance_transform_cdt(beyond, "taxicab")[1:-1, 9:-1]
    where = inside & (distance <= depth)
    assert surroundings.outer_layer(grid) == surroundings.layer(grid, where)


def test_a_layer_is_uniform_within_3_percent_of_the_tissue() -> None:
    for high, uniform in ((130, True), (131, False)):
        assert surroundings.is_uniform(layer_of(100, high), sampled([1, 2])) is uniform


@pytest.mark.parametrize(("columns", "width"), [(10, 1), (39, 1), (40, 2)])
def test_the_rest_differs_by_3_percent_of_the_tissue(columns: int, width: int) -> None:
    values = np.full((8, columns), 170.0)
    for row, (column, value) in enumerate(
        [(0, 70), (width - 1, 69), (width, 69), (3, 131), (3, 211), (columns - width, 211), (columns - 1, 69)]
    ):
        values[row, column] = value
    values[7, 0], values[7, 5] = 500, 210
    inside = np.ones((8, columns), np.bool_)
    inside[7, :4] = False
    found = surroundings.rest_of(sampled(values, inside), layer_of(100, 180))
    assert found.share == 5 / (8 * columns - 4)
    assert (found.at_wall, found.at_far_edge) == (1 / 8, 2 / 8)


def smoothed(grid: Sampled) -> np.ndarray:
    """Mean over the 7 x 7 pixels around each, of those inside; beyond the grid it is mirrored."""
    inside, values = (np.pad(part, 3, mode="reflect") for part in (grid.inside, np.where(grid.inside, grid.values, 0)))
    sums = (np.lib.stride_tricks.sliding_window_view(part, (7, 7)).sum((2, 3)) for part in (values, inside))
    total, count = sums
    return np.where(count > 0, total / np.maximum(count, 1), 0)


def graded(grid: Sampled, where: Mask) -> tuple[float, Mask]:
    """The distance of 70 % of the layer from its plane, and what is more than 0.09 of the level of tissue away."""
    rows, columns = np.nonzero(where)
    terms, values = np.stack([0 * rows + 1, rows, columns], axis=1), smoothed(grid)[where]
    near = np.full(len(values), True)
    for _ in range(6):
        plane = np.linalg.lstsq(terms[near].astype(float), values[near], rcond=None)[0]
        away = np.abs(values - terms @ plane)
        width = np.quantile(away, 0.7)
        near = away <= width
    row, column = np.indices(where.shape)
    differs = np.abs(smoothed(grid) - (plane[0] + plane[1] * row + plane[2] * column)) > 0.09 * grid.level
    return float(width), grid.inside & differs


def test_a_graded_layer_is_a_plane_and_the_rest_is_off_it() -> None:
    rng = np.random.default_rng(7)
    row, column = np.mgrid[0:60, 0:80]
    inside = ((row - 30) / 31) ** 2 + (column / 79) ** 2 < 1
    values = 200 + 2 * row + column + rng.uniform(-60, 60, row.shape)
    values[20:40, :50], values[:, 30:38], values[10:20, 60:] = 1500, 1200, 900
    inside[2, 74], values[2, 74] = True, 500
    distance = ndimage.distance_transform_cdt(
        np.pad(np.pad(inside, ((0, 0), (9, 0)), mode="edge"), ((1, 1), (0, 1))), "taxicab"
    )[1:-1, 9:-1]
    where = inside & (distance <= 4)
    width, _ = graded(sampled(values, inside), where)
    assert 2 < width < 40
    assert surroundings.graded_layer(sampled(values, inside, level=width / 0.03 * 0.999)) is None
    for level in (width / 0.03 * 1.001, width / 0.03 * 2):
        grid = sampled(values, inside, level=level)
        _, off = graded(grid, where)
        found = surroundings.graded_layer(grid)
        assert found
        assert found[0] == surroundings.layer(grid, where)
        assert found[1].share == np.count_nonzero(off) / np.count_nonzero(inside)
        assert found[1].at_wall == off[:, :4].any(axis=1).mean()
        assert found[1].at_far_edge == off[:, -4:].any(axis=1).mean()


# the shape


@pytest.mark.parametrize(("ends", "straight"), [(10, False), (11, True)])
def test_more_than_half_of_the_rows_end_on_a_straight_line(ends: int, straight: bool) -> None:
    """Within a hundredth of the columns of the image, which has 1000 of them."""
    right = [20] * 20
    right[3 : 3 + ends] = [290] * ends
    right[4] = 300
    assert surroundings.is_straight(breast_of(right, left=7), 1000) is straight
    right[3] = 289
    assert not surroundings.is_straight(breast_of(right, left=7), 1000)


@pytest.mark.parametrize("side", ["upper", "lower", "both"])
@pytest.mark.parametrize(("filled", "straight"), [(5, False), (6, True)])
def test_a_filled_corner_is_that_of_a_frame(side: str, filled: int, straight: bool) -> None:
    """A corner is a tenth of the rows and columns of the breast, here two rows and ten columns."""
    right = [90] * 20
    right[10] = 100
    corners = {"upper": [0, 1], "lower": [18, 19], "both": [0, 1, 18, 19]}[side]
    for row in corners:
        right[row] = 90 + filled
    for left in (0, 7):
        assert surroundings.is_straight(breast_of(right, left), 107) is straight
    narrow = breast_of(right, 7)
    narrow.left[corners] = narrow.right[corners] - 5
    assert not surroundings.is_straight(narrow, 107)


def test_a_corner_is_filled_on_average_and_no_row_counts_below_0() -> None:
    for first, second, straight in ((7, 3, False), (7, 4, True)):
        right = [90] * 20
        right[0], right[1], right[10] = 90 + first, 90 + second, 100
        assert surroundings.is_straight(breast_of(right, 7), 107) is straight
    right = [20] * 30
    right[0] = right[1] = right[10] = 100
    assert surroundings.is_straight(breast_of(right, 7), 107)


def test_a_tenth_of_the_columns_is_rounded_down() -> None:
    for filled, straight in ((5, False), (6, True)):
        right = [90] * 20
        right[0] = right[1] = 99 + filled
        right[10] = 109
        assert surroundings.is_straight(breast_of(right, 7), 116) is straight


def test_a_corner_of_a_small_breast_has_one_pixel() -> None:
    narrow = breast_of([9, 1, 1, 9, 1, 1, 1, 1])
    narrow.left[0] = 8
    assert surroundings.is_straight(narrow, 8)
    assert surroundings.is_straight(breast_of([9, 1, 1, 9, 1, 1, 1, 1]), 8)
    assert not surroundings.is_straight(breast_of([1, 9, 1, 9, 1, 1, 1, 1]), 8)
    assert surroundings.is_straight(breast_of([1, 9, 1, 9, 1, 1, 1, 9]), 8)


@pytest.mark.parametrize(("lacking", "fills"), [(8, False), (7, True)])
@pytest.mark.parametrize("rows", [10, 25])
def test_a_rectangle_fills_more_than_92_percent_of_its_box(rows: int, lacking: int, fills: bool) -> None:
    right = np.full(rows, 100 // rows)
    right[1 : 1 + lacking] -= 1
    assert surroundings.fills_its_box(breast_of(right.tolist(), left=3)) is fills


def test_the_second_bulge_is_the_largest_return_of_the_outline() -> None:
    right = [5, 10, 20, 15, 17, 12, 16, 3]
    for ends in (right, right[::-1]):
        assert surroundings.second_bulge(breast_of(ends, left=3)) == 4 / 20
    assert surroundings.second_bulge(breast_of([13, 5, 8, 20, 15, 17, 12])) == 8 / 20
    assert surroundings.second_bulge(breast_of([1, 5, 9, 4, 2])) == 0


@pytest.mark.parametrize(("columns", "width"), [(10, 1), (39, 1), (40, 2)])
def test_an_even_tip_has_one_value_that_the_rest_has_not(columns: int, width: int) -> None:
    values = np.arange(10 * columns).reshape(10, columns) + 100
    half, tip = 5 * width, np.arange(10 * width).reshape(10, width)
    for count, even in ((half, False), (half + 1, True)):
        values[:, -width:] = np.where(tip < count, 7, tip + 50)
        assert surroundings.has_even_tip(sampled(values)) is even
    values[:, :-width] = np.where(np.arange(columns - width) < columns // 2 - width, 7, 900)
    values[:, -width:] = 7
    if columns % 2 == 0:
        assert np.mean(values == 7) == 0.5
        assert not surroundings.has_even_tip(sampled(values))


# the outline


def profile_of(pixels: Pixels, row: int, last: int) -> list[float]:
    """Mean values 1-2, 1-4, 8-15, 24-31 and 40-89 pixels inside column `last`, as far as there are columns."""
    inwards = [float(pixels[row, max(0, last - depth)]) for depth in range(90)]
    return [float(np.mean(inwards[first:end])) for first, end in ((1, 3), (1, 5), (8, 16), (24, 32), (40, 90))]


def with_outline(rows: int, columns: int = 260) -> tuple[Pixels, Breast, list[int]]:
    """Noise that rises from 0 within 5 to 70 pixels; the breast ends up to 42 pixels before it; its last pixels."""
    rng = np.random.default_rng(6)
    pixels = rng.integers(1, 900, (rows + 9, columns))
    ends = rng.integers(60, 200, rows)
    ends[rng.permutation(rows)[: rows // 9]] = columns
    ramp = np.clip((ends[:, None] - np.arange(columns)) / rng.integers(5, 70, rows)[:, None], 0, 1)
    tissue = np.maximum(1, pixels[4 : 4 + rows] * ramp)
    pixels[4 : 4 + rows] = np.where(np.arange(columns) < ends[:, None], tissue, 0)
    return pixels.astype(np.uint16), Breast(top=4, left=0 * ends, right=ends - rng.integers(0, 43, rows)), ends - 1


@pytest.mark.parametrize(("rows", "step"), [(50, 1), (599, 1), (600, 2)])
@pytest.mark.parametrize("level", [100, 700, 2000])
def test_an_outline_is_measured_in_12_parts(rows: int, step: int, level: float) -> None:
    """Of the rows that end before the edge of the image and at most 40 pixels beyond the breast."""
    pixels, breast, last = with_outline(rows)
    values = np.array(
        [
            profile_of(pixels, 4 + row, last[row])
            for row in range(0, rows, step)
            if last[row] < 259 and last[row] + 1 - breast.right[row] <= 40
        ]
    )
    found = surroundings.measure_outline(take(pixels, breast), breast, level)
    medians = [np.median(part, axis=0) for part in np.array_split(values, 12)]
    assert found.value == pytest.approx(np.median(values[:, 1]))
    assert found.inner == pytest.approx(np.median(values[:, 4]))
    assert found.hard == np.mean([is_hard(*each, level) for each in medians])


@pytest.mark.parametrize(("rows", "measured"), [(23, False), (24, True)])
def test_an_outline_has_24_rows_at_least(rows: int, measured: bool) -> None:
    pixels = np.where(np.arange(260) < 150, 500, np.zeros((rows, 1))).astype(np.uint16)
    breast = breast_of([150] * rows, top=0)
    found = surroundings.measure_outline(take(pixels, breast), breast, 500)
    assert found == (surroundings.Outline(hard=1, value=500, inner=500) if measured else surroundings.NO_OUTLINE)


# first pixels, skin, two depths of a band, interior
PARTS = {
    "a skin": ((50, 60, 200, 400, 600), False),
    "as bright as the interior": ((50, 82, 70, 90, 100), True),
    "darker than the interior": ((50, 81, 70, 90, 100), False),
    "high": ((50, 400, 1000, 2000, 3000), True),
    "less high": ((50, 399, 1000, 2000, 3000), False),
    "a band": ((95, 95, 100, 100, 199), True),
    "a band that rises": ((95, 95, 100, 101, 199), False),
    "a band that rises, before much more": ((95, 95, 100, 101, 200), True),
    "no band: darker outside": ((92, 92, 100, 95, 200), False),
    "a band: as dark as 0.93": ((93, 93, 100, 95, 200), True),
    "no band: brighter outside": ((110, 110, 100, 110, 200), False),
    "a band up to 1/0.93": ((100, 100, 93, 100, 186), True),
    "a band that falls by 0.95": ((100, 100, 100, 95, 150), True),
    "a band that falls more": ((100, 100, 100, 94, 150), False),
}


@pytest.mark.parametrize(("part", "hard"), PARTS.values(), ids=PARTS)
def test_a_part_is_hard_without_a_skin(part: tuple[int, ...], hard: bool) -> None:
    """The values are those of 24 rows, at the depths that are compared."""
    first, near, band, deeper, inner = part
    depth = np.zeros(90)
    depth[0], depth[1:3], depth[3:8] = 1, first, 2 * near - first
    depth[8:24], depth[24:40], depth[40:] = band, deeper, inner
    pixels = np.zeros((24, 200))
    pixels[:, 10:100] = depth[::-1]
    breast = breast_of([100] * 24, top=0)
    found = surroundings.measure_outline(take(pixels.astype(np.float32), breast), breast, 1000)
    assert found == surroundings.Outline(hard=float(hard), value=near, inner=inner)


def is_hard(first: float, near: float, band: float, deeper: float, inner: float, level: float) -> bool:
    even = first / band >= 0.93 and first * 0.93 <= band
    ends = (deeper / first >= 0.95 and deeper * 0.95 <= first) or inner <= band / 2 or inner >= 2 * band
    return near / inner >= 0.82 or near / level >= 0.4 or (even and ends)

"""Placement of whole images on the CPU, against preprocessing. Most views are seen through a small network frame."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cuda_host.build import build_kernels
from cuda_host.run import HostModule
from golden.recipe import raw_mammogram
from support.whole_images import Placer, assert_same

from glam_deploy.errors import InputError
from glam_deploy.gpu.kernels import staging
from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.gpu.kernels.placed import PlaceStatus, read
from glam_deploy.networks import CAM, GLAM
from glam_deploy.preprocess import frame, place
from glam_deploy.preprocess.standardize import standardize
from glam_deploy.records import Mammogram, Pixels, View
from tests.glam_deploy.preprocess import views

SMALL = replace(CAM, input_shape=(320, 256), map_shape=(10, 8))
FLIPS = [(view, flip) for view in View for flip in (False, True)]
GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "preprocessing.json").read_text())


@pytest.fixture(scope="module")
def small_module(host_kernels: Path, tmp_path_factory: pytest.TempPathFactory) -> HostModule:
    """`host_kernels` only because it skips without a compiler."""
    return HostModule(build_kernels(tmp_path_factory.mktemp("small"), SMALL))


@pytest.fixture(scope="module")
def placer(small_module: HostModule) -> Placer:
    return Placer(Kernels(small_module, SMALL), SMALL, area_bytes=1_500_000)


def stored(pixels: Pixels, view: View, *, flip: bool = False) -> Mammogram:
    """A view whose right-facing `pixels` are stored as the view and the flip say."""
    turned = np.ascontiguousarray(pixels[:, ::-1]) if view.is_right != flip else pixels
    return Mammogram(pixels=turned, view=view, horizontal_flip=flip)


def breast(rows: int, columns: int, dtype: str = "uint16", *, reach: float = 0.7, height: float = 0.42) -> Pixels:
    """Half an ellipse of noise with holes, and specks around it."""
    rng = np.random.default_rng(rows * columns)
    y = (np.arange(rows)[:, None] - rows * 0.48) / (rows * height)
    x = np.arange(columns) / (columns * reach)
    pixels = np.where(y**2 + x**2 < 1, rng.integers(1, 250, (rows, columns)), 0)
    pixels[rng.integers(0, rows, 40), rng.integers(0, columns, 40)] = 255
    if rows > 500:
        pixels[rows // 2 + 3, 5] = 0
    return (pixels / 7).astype(dtype) if dtype == "float32" else pixels.astype(dtype)


@pytest.mark.parametrize(("view", "flip"), FLIPS)
def test_every_view_and_flip(placer: Placer, small_module: HostModule, view: View, flip: bool) -> None:
    dtype = ("uint8", "uint16", "float32")[FLIPS.index((view, flip)) % 3]
    sample = stored(breast(601, 487, dtype), view, flip=flip)
    assert_same(placer(sample)[0], sample, SMALL.input_shape)
    with small_module.backwards():
        assert_same(placer(sample)[0], sample, SMALL.input_shape)


WINDOWS = {
    "smaller crop": breast(260, 230, height=0.47, reach=0.9),
    "odd padding": breast(263, 231, height=0.47, reach=0.9),
    "wide crop": breast(300, 520, height=0.42, reach=0.8),
    "tall crop": breast(650, 260, reach=0.9),
    "all of the image": np.ones((401, 300), np.uint16) + np.eye(401, 300, dtype=np.uint16),
    "sides of 1024": breast(1024, 700, "uint8", height=0.49, reach=0.95),
    "full words": breast(512, 512),
}


@pytest.mark.parametrize("mlo", [False, True])
@pytest.mark.parametrize("pixels", WINDOWS.values(), ids=WINDOWS)
def test_crops_smaller_and_larger_than_the_window(placer: Placer, pixels: Pixels, mlo: bool) -> None:
    sample = stored(pixels, View.R_MLO if mlo else View.L_CC)
    assert_same(placer(sample)[0], sample, SMALL.input_shape)


def test_an_axilla_beyond_the_window_does_not_count_as_the_lowest_point(placer: Placer) -> None:
    """The lowest row is at the chest wall, the last columns of the crop end higher."""
    pixels = np.zeros((620, 560), np.uint16)
    pixels[:330] = 9
    pixels[:, :215] = np.arange(7, 222)
    placement = assert_same(placer(stored(pixels, View.L_MLO))[0], stored(pixels, View.L_MLO), SMALL.input_shape)
    assert placement.best_center is not None
    assert placement.best_center[0] < 330


def test_ties_of_the_best_centre_go_to_the_middle_and_up(placer: Placer) -> None:
    pixels = np.zeros((700, 300), np.uint16)
    pixels[10:690, :280] = 5
    pixels[300, 7] = 8
    placement = assert_same(placer(stored(pixels, View.L_CC))[0], stored(pixels, View.L_CC), SMALL.input_shape)
    assert placement.best_center is not None
    assert placement.best_center[0] == 350


@pytest.mark.parametrize("backwards", [False, True])
def test_of_equal_components_the_first_is_the_breast(placer: Placer, small_module: HostModule, backwards: bool) -> None:
    """Four squares whose cores have 50 x 50 pixels; the upper two begin in the same row."""
    pixels = np.zeros((600, 600), np.uint16)
    for row, column in ((330, 5), (20, 330), (330, 330), (20, 10)):
        pixels[row : row + 250, column : column + 250] = np.random.default_rng(row).integers(1, 9, (250, 250))
    sample = stored(pixels, View.L_CC)
    if backwards:
        with small_module.backwards():
            found = placer(sample)[0]
    else:
        found = placer(sample)[0]
    assert_same(found, sample, SMALL.input_shape)
    assert found.found is not None
    assert found.found.breast.box == (20, 10, 270, 260)


@pytest.mark.parametrize("row", [0, 1, 2, 33, 50, 64, 100])
def test_a_hole_erodes_the_centre_of_a_square_up_to_100_pixels_away(placer: Placer, row: int) -> None:
    """The core of the square is one pixel. The hole is on the outline of the diamond, and one pixel outside of it."""
    for column, outside in ((min(row, 100 - row), False), (100 - row, False), (101 - row, True)):
        pixels = np.pad(np.ones((201, 201), np.uint8), 1)
        pixels[101 - row, 101 + column] = 0
        sample = Mammogram(pixels=pixels, view=View.L_CC)
        located = placer(sample)[0]
        if outside:
            assert_same(located, sample, SMALL.input_shape)
        else:
            assert located.status is PlaceStatus.THIN


def with_pixel(value: float) -> Pixels:
    pixels = breast(420, 300, "float32")
    pixels[419, 299] = value
    return pixels


REFUSED = {
    "NaN": (with_pixel(np.nan), PlaceStatus.NOT_FINITE, "NaN or infinite"),
    "infinity": (with_pixel(np.inf), PlaceStatus.NOT_FINITE, "NaN or infinite"),
    "negative": (with_pixel(-0.5), PlaceStatus.NEGATIVE, "smallest pixel is -0.5"),
    "minus infinity": (with_pixel(-np.inf), PlaceStatus.NOT_FINITE, "NaN or infinite"),
    "only NaN": (np.full((250, 250), np.nan, np.float32), PlaceStatus.NOT_FINITE, "NaN or infinite"),
    "empty": (np.zeros((250, 250), np.uint16), PlaceStatus.EMPTY, "no pixel is above 0"),
    "minus zero": (np.full((250, 250), -0.0, np.float32), PlaceStatus.EMPTY, "no pixel is above 0"),
    "constant": (np.full((250, 250), 3, np.uint8), PlaceStatus.CONSTANT, "Every pixel is 3"),
    "thin": (np.pad(np.arange(1, 201, dtype=np.uint16) * np.ones((300, 1), np.uint16), 9), PlaceStatus.THIN, "200"),
    "one row": (np.arange(8192, dtype=np.uint16)[None], PlaceStatus.THIN, "nowhere thicker"),
    "one column": (np.arange(8192, dtype=np.uint16)[:, None], PlaceStatus.THIN, "nowhere thicker"),
    "one pixel": (np.ones((1, 1), np.uint8), PlaceStatus.CONSTANT, "Every pixel is 1"),
    "one pixel of 0": (np.zeros((1, 1), np.float32), PlaceStatus.EMPTY, "no pixel is above 0"),
}


@pytest.mark.parametrize(("pixels", "status", "words"), REFUSED.values(), ids=REFUSED)
def test_an_image_that_is_refused_has_the_status_of_the_host_and_an_empty_window(
    placer: Placer, pixels: Pixels, status: PlaceStatus, words: str
) -> None:
    sample = Mammogram(pixels=pixels, view=View.L_CC)
    with pytest.raises(InputError, match=words):
        place(sample, network_shape=SMALL.input_shape)
    located = placer(sample)[0]
    assert (located.status, located.found) == (status, None)
    if status is not PlaceStatus.NOT_FINITE:
        assert (located.low, located.high) == (pixels.min(), pixels.max())
    np.testing.assert_array_equal(placer.images(), np.zeros((1, *SMALL.input_shape)))


LARGEST = {
    "most rows": breast(8192, 230, "uint8", reach=1.1, height=0.5),
    "most columns": np.tile(breast(250, 512, "uint8", reach=9, height=0.5), (1, 16)),
}


@pytest.mark.parametrize("pixels", LARGEST.values(), ids=LARGEST)
def test_longest_sides(small_module: HostModule, pixels: Pixels) -> None:
    placer = Placer(Kernels(small_module, SMALL), SMALL, area_bytes=staging.whole_bytes(*pixels.shape, pixels.dtype))
    for view in (View.L_CC, View.R_MLO):
        sample = stored(pixels, view)
        assert_same(placer(sample)[0], sample, SMALL.input_shape)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_window_is_standardized_from_the_whole_image(placer: Placer, dtype: str) -> None:
    for view, shape in ((View.R_CC, (500, 397)), (View.L_MLO, (333, 450)), (View.R_MLO, (310, 253))):
        sample = stored(breast(*shape, dtype, height=0.49, reach=0.95), view)
        placement = assert_same(placer(sample)[0], sample, SMALL.input_shape)
        expected = frame.map_to_network(placement, sample.pixels).astype(np.float32)
        standardize(expected)
        np.testing.assert_allclose(placer.images()[0], expected, rtol=1e-6, atol=1e-6)


def test_whole_images_parts_and_refused_images_in_one_batch(small_module: HostModule) -> None:
    """A part that was placed on the host is left alone, and its samples too."""
    wholes = [stored(breast(420, 301), View.R_CC), stored(np.zeros((300, 300), np.uint8), View.L_CC)]
    part = np.random.default_rng(0).integers(1, 999, (300, 200)).astype(np.uint16)
    samples = [wholes[0], Mammogram(pixels=part, view=View.L_CC), wholes[1]]
    placer = Placer(Kernels(small_module, SMALL), SMALL, area_bytes=600_000, n=3)
    placer.pack(*samples)
    staging.pack(placer.areas.array[1], part, row=10, column=20, mirrored=True, network_shape=SMALL.input_shape)
    first, untouched, last = placer.launch(*samples)
    assert_same(read(first, wholes[0].pixels.dtype), wholes[0], SMALL.input_shape)
    assert (untouched == 0xFF).all()
    assert read(last, wholes[1].pixels.dtype).status is PlaceStatus.EMPTY
    images = placer.images()
    expected = np.zeros(SMALL.input_shape, np.float64)
    expected[10:310, 20:220] = part[:, ::-1]
    np.testing.assert_allclose(images[1], (expected - expected.mean()) / expected.std(), rtol=1e-5, atol=1e-5)
    assert not images[2].any()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_views_that_look_unusual(placer: Placer, seed: int) -> None:
    for _, pixels, view, notices in views.variants(seed):
        sample = views.stored(pixels[:850, :430], view, notices=notices)
        assert_same(placer(sample)[0], sample, SMALL.input_shape)


@pytest.fixture(scope="module")
def full(kernels: Kernels) -> Placer:
    largest = max(staging.whole_bytes(case["height"], case["width"], np.dtype(np.uint16)) for case in GOLDEN)
    return Placer(kernels, GLAM, area_bytes=largest)


def golden(case: dict):
    """Four cases, one of each view, in `make test`; all in `make test-slow`."""
    marks = () if case["seed"] <= 14 else pytest.mark.slow
    return pytest.param(case, id=f"{case['seed']}-{case['view']}", marks=marks)


@pytest.mark.parametrize("case", [golden(case) for case in GOLDEN])
def test_published_case(full: Placer, case: dict) -> None:
    """Against the published implementation, and all samples against numpy, at full size."""
    pixels = raw_mammogram(case["seed"], case["view"], case["height"], case["width"])
    sample = Mammogram(pixels=pixels, view=View(case["view"]))
    located = full(sample)[0]
    placement = assert_same(located, sample, GLAM.input_shape)
    assert list(placement.crop_window) == case["window_location"]
    found = located.found
    assert found is not None
    facts = found.crop_facts
    seen = [found.best_center, facts.rightmost_points, facts.bottommost_points, facts.distance_from_starting_side]
    published = [case[key] for key in ("best_center", "rightmost_points", "bottommost_points")]
    assert json.loads(json.dumps(seen)) == [*published, case["distance_from_starting_side"]]

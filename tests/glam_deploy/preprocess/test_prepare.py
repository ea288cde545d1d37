"""The whole way at full size, and every documented refusal and notice."""

import sys

import numpy as np
import pytest

from glam_deploy.errors import InputError, Remedy
from glam_deploy.networks import GLAM
from glam_deploy.preprocess import from_standardized, network_input, place, point_to_source, prepare
from glam_deploy.preprocess.prepare import check_pixels, check_raw
from glam_deploy.records import Mammogram, Notice, Source, View

from . import scenes, slow


@pytest.mark.parametrize(("view", "flip"), [(View.L_CC, False), (View.R_MLO, False), (View.R_CC, True)])
def test_same_input_as_the_published_steps(view, flip):
    rng = np.random.default_rng(3)
    tissue = scenes.tissue(700, 500, height=0.45)
    sample = scenes.mammogram(
        tissue + (tissue > 0) * rng.integers(0, 3000, tissue.shape, np.uint16), view, horizontal_flip=flip
    )
    expected = slow.preprocess(
        sample.pixels, faces_left=sample.faces_left, is_mlo=True, n=100, buffer=50, size=GLAM.input_shape
    ).window.astype(np.float64)
    if not view.is_mlo:
        expected = np.roll(expected, (GLAM.input_shape[0] - crop_rows(sample)) // 2, axis=0)
    made = prepare(sample)
    np.testing.assert_allclose(made.image, (expected - expected.mean()) / expected.std(), rtol=0, atol=1e-5)
    assert made.view == view and made.source is sample.source


SMALL = (300, 220)
"""A network frame that is smaller than the breast of `numbered` in both directions."""


def numbered(view, flip=False, half_turn=False):
    """A view in which every pixel of the breast has a value of its own."""
    tissue = scenes.tissue(420, 340, reach=0.8, height=0.45)
    values = np.random.default_rng(4).permutation(tissue.size).reshape(tissue.shape) % 60000 + 1
    return scenes.mammogram(
        np.where(tissue > 0, values, 0).astype(np.uint16), view, horizontal_flip=flip, half_turn=half_turn
    )


@pytest.mark.parametrize(("view", "flip"), scenes.FLIPS)
def test_a_small_window_in_every_orientation(view, flip):
    sample = numbered(view, flip)
    expected = slow.preprocess(
        sample.pixels, faces_left=sample.faces_left, is_mlo=view.is_mlo, n=100, buffer=50, size=SMALL
    )
    made = prepare(sample, network_shape=SMALL)
    window = expected.window.astype(np.float64)
    np.testing.assert_allclose(made.image, (window - window.mean()) / window.std(), rtol=0, atol=1e-5)
    assert made.placement.crop_window == expected.crop_window
    assert made.placement.best_center == expected.best_center
    assert (made.placement.source_shape, made.placement.network_shape) == (sample.pixels.shape, SMALL)
    assert made.crop_facts.rightmost_points == expected.rightmost
    turned = numbered(view, flip, half_turn=True)
    again = prepare(turned, network_shape=SMALL)
    np.testing.assert_array_equal(again.image, made.image)
    assert (again.notices, again.crop_facts) == (made.notices, made.crop_facts)
    assert place(turned, network_shape=SMALL).pixels is turned.pixels
    in_crop = np.count_nonzero(sample.pixels)
    share = 100 * (1 - np.count_nonzero(window) / in_crop)
    assert made.notices[0].code == "tissue-outside-window"
    assert made.notices[0].message == f"{share:.2g} % of the foreground is outside the 300 x 220 window."
    assert again.placement.half_turn and not made.placement.half_turn
    at = np.argwhere(made.image == made.image.max())[0]
    for placed, pixels in ((made, sample.pixels), (again, turned.pixels)):
        assert pixels[point_to_source(placed.placement, tuple(at))] == window.max()


@pytest.mark.parametrize("view", [View.L_CC, View.R_CC])
def test_a_crop_ends_50_pixels_from_the_breast_or_at_the_edge(view):
    """In the middle of a window of more rows."""
    pixels = scenes.tissue(700, 340, reach=0.9, height=0.3)
    top, left, bottom, right = slow.box_of(slow.breast_mask(pixels > 0, 100))
    assert top > 50 and left == 0 and bottom < 650 and right > 290
    placement = place(scenes.mammogram(pixels, view), network_shape=(600, 220)).placement
    assert placement.crop_window == (top - 50, bottom + 50, 0, 340)
    assert placement.row_shift == -((600 - (bottom - top + 100)) // 2)


def crop_rows(sample):
    top, bottom, _, _ = prepare(sample).placement.crop_window
    return bottom - top


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_type_and_memory_layout_do_not_matter(dtype):
    pixels = (scenes.tissue(700, 500) // 4).astype(dtype)
    plain = prepare(scenes.mammogram(pixels)).image
    strided = prepare(Mammogram(pixels=np.asfortranarray(pixels), view=View.L_CC)).image
    mirrored = prepare(Mammogram(pixels=pixels[:, ::-1], view=View.R_CC)).image
    np.testing.assert_array_equal(plain, strided)
    np.testing.assert_array_equal(plain, mirrored)
    assert plain.dtype == np.float32
    assert plain.mean(dtype=np.float64) == pytest.approx(0, abs=1e-6)
    assert plain.std(dtype=np.float64) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("exponent", [-16, 16])
def test_a_power_of_two_as_factor_changes_nothing(exponent):
    """Up to the largest pixel that is accepted, 2**32, without a warning."""
    pixels = numbered(View.L_CC).pixels.astype(np.float32)
    pixels[pixels == pixels.max()] = 2**16
    images = [
        prepare(Mammogram(pixels=each, view=View.L_CC), network_shape=SMALL).image
        for each in (pixels, np.ldexp(pixels, exponent))
    ]
    np.testing.assert_allclose(images[1], images[0], rtol=0, atol=1e-5)


def test_a_place_is_found_without_the_standardized_image():
    sample = scenes.mammogram(scenes.tissue(700, 500), View.R_CC)
    placed, made = place(sample), prepare(sample)
    for fact in ("placement", "source", "view", "notices", "crop_facts"):
        assert getattr(placed, fact) == getattr(made, fact)
    assert placed.pixels is sample.pixels
    np.testing.assert_array_equal(network_input(placed).image, made.image)


def test_placed_pixels_are_contiguous():
    pixels = np.asfortranarray(scenes.tissue(700, 500))
    placed = place(Mammogram(pixels=pixels, view=View.L_CC))
    assert placed.pixels.flags.c_contiguous
    np.testing.assert_array_equal(placed.pixels, pixels)


def test_the_pixels_given_are_left_alone():
    sample = scenes.mammogram(scenes.tissue(700, 500).astype(np.float32))
    before = sample.pixels.copy()
    prepare(sample)
    np.testing.assert_array_equal(sample.pixels, before)


def speck(value):
    pixels = scenes.tissue(700, 500).astype(np.float32)
    pixels[350, 50] = value
    return pixels


REFUSED = {
    "empty": (np.zeros((700, 500), np.uint16), "no pixel is above 0"),
    "no pixels": (np.zeros((0, 500), np.uint16), r"\(0, 500\)"),
    "constant": (np.full((700, 500), 7, np.uint16), "Every pixel is 7"),
    "NaN": (speck(np.nan), "NaN or infinite"),
    "infinite": (speck(np.inf), "NaN or infinite"),
    "negative": (speck(-3), "smallest pixel is -3"),
    "colour": (np.ones((700, 500, 3), np.uint8), r"\(700, 500, 3\)"),
    "signed": (scenes.tissue(700, 500).astype(np.int16), "int16"),
    "big-endian": (scenes.tissue(700, 500).astype(">u2"), ">u2"),
    "float64": (scenes.tissue(700, 500).astype(np.float64), "float64"),
    "too thin": (scenes.tissue(240, 500), "remains after 100 erosions"),
    "background 1": (scenes.tissue(700, 500) + np.uint16(1), "background is 1, not 0: 100 %"),
    "inverted": (np.uint16(4095) - scenes.tissue(700, 500), "background is 4095"),
}


@pytest.mark.parametrize(("pixels", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(pixels, why):
    with pytest.raises(InputError, match=why):
        prepare(Mammogram(pixels=pixels, view=View.L_CC))


def test_a_background_above_zero_on_most_of_the_border_is_named_though_the_chest_wall_is_tissue():
    pixels = scenes.tissue(700, 500)
    pixels[0], pixels[:, -1] = 3, 3
    with pytest.raises(InputError, match="background is 3, not 0: 71 %"):
        prepare(scenes.mammogram(pixels))
    half = scenes.tissue(700, 500)
    half[:, -1] = 3
    assert prepare(scenes.mammogram(half)).image.shape == GLAM.input_shape


@pytest.mark.parametrize(("view", "flip"), scenes.FLIPS)
def test_the_wrong_side_is_refused_and_the_remedy_named(view, flip):
    sample = scenes.mammogram(scenes.tissue(700, 500), view, horizontal_flip=flip)
    wrong = Mammogram(pixels=sample.pixels, view=view, horizontal_flip=not flip)
    with pytest.raises(InputError, match=f"pass horizontal_flip={flip}"):
        prepare(wrong)
    assert prepare(sample).notices == ()


def test_the_wrong_side_is_refused_behind_black_columns_too():
    pixels = scenes.tissue(700, 500)
    pixels[:, :9] = 0
    with pytest.raises(InputError, match="pass horizontal_flip=True"):
        prepare(Mammogram(pixels=np.ascontiguousarray(pixels[:, ::-1]), view=View.L_CC))


def codes(sample):
    return [notice.code for notice in prepare(sample).notices]


@pytest.mark.parametrize("view", [View.L_CC, View.R_MLO])
def test_a_breast_off_the_chest_wall_is_noticed(view):
    made = prepare(scenes.mammogram(scenes.tissue(700, 700, gap=12, reach=0.6), view))
    assert [n.code for n in made.notices] == ["off-chest-wall"]
    expected = slow.box_of(slow.breast_mask(scenes.tissue(700, 700, gap=12, reach=0.6) > 0, 100))[1]
    assert made.crop_facts.distance_from_starting_side == expected >= 12
    assert f"{expected} pixels" in made.notices[0].message


def test_lost_tissue_is_noticed_with_its_share():
    pixels = scenes.tissue(3600, 900, height=0.55)
    made = prepare(scenes.mammogram(pixels))
    seen = np.count_nonzero(made.image > 0)
    assert [n.code for n in made.notices] == ["tissue-outside-window"]
    assert f"{100 * (1 - seen / np.count_nonzero(pixels)):.2g} %" in made.notices[0].message


def test_eight_bits_are_noticed_after_what_the_reader_noticed():
    pixels = (scenes.tissue(700, 500) // 8).astype(np.uint8)
    earlier = Notice(code="earlier", message="from the reader")
    assert codes(Mammogram(pixels=pixels, view=View.L_CC, notices=(earlier,))) == ["earlier", "8-bit"]


@pytest.mark.parametrize(("view", "flip"), scenes.FLIPS)
@pytest.mark.parametrize("rim", [0, 2, 5])
@pytest.mark.parametrize("background", [20, None])
def test_a_background_above_zero_behind_a_black_rim_is_refused(view, flip, rim, background):
    pixels = scenes.tissue(700, 500)
    noise = np.random.default_rng(1).integers(1, 5, pixels.shape, np.uint16)
    pixels = np.where(pixels > 0, pixels, noise if background is None else np.uint16(background))
    pixels[:rim], pixels[700 - rim :], pixels[:, 500 - rim :] = 0, 0, 0
    with pytest.raises(InputError, match=r"background is (20, )?not 0"):
        prepare(scenes.mammogram(pixels, view, horizontal_flip=flip))


def test_a_breast_cut_off_by_the_far_edge_is_not_a_background():
    assert prepare(scenes.mammogram(scenes.tissue(700, 500, reach=1.02))).image.shape == GLAM.input_shape


SIGNS = np.where(np.indices((6, 4)).sum(axis=0) % 2, -1.0, 1.0)
"""Mean 0 and standard deviation 1, both exactly."""


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("image", [SIGNS, SIGNS + 0.0625, SIGNS - 0.0625, SIGNS * 1.0625, SIGNS * 0.9375])
def test_a_standardized_array_is_not_taken_for_raw(image, dtype, monkeypatch):
    """With a tolerance that binary numbers hold exactly, and is within."""
    monkeypatch.setattr(sys.modules["glam_deploy.preprocess.prepare"], "TOLERANCE", 0.0625)
    with pytest.raises(InputError, match=rf"The array is {np.dtype(dtype)} \[6, 4\] with mean 0") as caught:
        check_raw(image.astype(dtype), (6, 4))
    assert caught.value.remedies == (Remedy.STANDARDIZED,)


def nudged(image, at, by):
    """float16, with one value changed by its last bit: so little that a mean in float16 does not show it."""
    made = image.astype(np.float16)
    made[at] += np.float16(by)
    return made


@pytest.mark.parametrize(
    "image",
    [
        SIGNS[:5],
        nudged(SIGNS + 0.0625, (0, 1), 2**-11),
        nudged(SIGNS * 1.0625, (0, 0), 2**-10),
        SIGNS.astype(np.int16),
        SIGNS + 0.0626,
        SIGNS - 0.0626,
        SIGNS * 1.0626,
        SIGNS * 0.9374,
        np.where(SIGNS > 0, 2, 0) * 1.0,
    ],
)
def test_other_arrays_are_taken_for_raw(image, monkeypatch):
    monkeypatch.setattr(sys.modules["glam_deploy.preprocess.prepare"], "TOLERANCE", 0.0625)
    assert check_raw(image, (6, 4)) is None


def test_a_sparse_image_with_the_moments_of_a_standardized_one_is_raw():
    """Its smallest value is 0, and standardized inputs have values below it."""
    image = np.zeros((100, 100))
    image[0, 0] = 100
    assert (round(image.mean(), 2), round(image.std(), 2)) == (0.01, 1.0)
    assert check_raw(image, (100, 100)) is None


def test_a_standardized_array_is_refused_as_such_whatever_the_network():
    image = np.tile(SIGNS, (50, 55)).astype(np.float32)
    with pytest.raises(InputError, match="with mean 0 and standard deviation 1"):
        place(Mammogram(pixels=image, view=View.L_CC), network_shape=SMALL)
    with pytest.raises(InputError, match="with mean 0 and standard deviation 1"):
        check_pixels(standard().astype(np.float32))


PADDING = Source(name="a.dcm", kind="dicom", facts={"padding": "3 pixels of PixelPaddingValue 5 are background"})


@pytest.mark.parametrize(
    ("pixels", "why", "remedies"),
    [
        (scenes.tissue(240, 500), "remains after 100 erosions", ()),
        (np.tile(SIGNS, (50, 55)).astype(np.float32), "with mean 0 and standard", (Remedy.STANDARDIZED,)),
    ],
)
def test_padding_may_be_the_cause(pixels, why, remedies):
    """Of what is found in the pixels and of what the search for the breast finds."""
    told = "^3 pixels of PixelPaddingValue 5 are background: correct the tags if these are no padding. Without these"
    with pytest.raises(InputError, match=f"{told} pixels: .*{why}") as caught:
        place(Mammogram(pixels=pixels, view=View.L_CC, source=PADDING), network_shape=SMALL)
    assert caught.value.remedies == remedies


SOURCE = Source(name="array", kind="array")


def standard(add=0.0, scale=1.0, speck=None):
    image = np.random.default_rng(5).standard_normal(GLAM.input_shape).astype(np.float32)
    image = (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64) * scale + add
    if speck is not None:
        image[7, 9] = speck
    return image


def test_a_standardized_input_passes_as_it_is():
    image = standard().astype(np.float32)
    made = from_standardized(image, source=SOURCE)
    np.testing.assert_array_equal(made.image, image)
    assert made.view is None and made.crop_facts is None and made.notices == ()
    place = made.placement
    assert (place.source_shape, place.crop_window, place.mirrored) == (GLAM.input_shape, (0, 2944, 0, 1920), False)
    assert (place.row_shift, place.column_shift, place.best_center) == (0, 0, None)


NOT_STANDARDIZED = {
    "shape": (lambda: np.zeros((1920, 2944), np.float32), r"\(1920, 2944\)"),
    "dtype": (lambda: np.zeros(GLAM.input_shape, np.uint16), "uint16"),
    "constant": (lambda: np.zeros(GLAM.input_shape, np.float32), "constant"),
    "mean": (lambda: standard(add=0.06), "mean is 0.06"),
    "deviation": (lambda: standard(scale=1.06), "deviation 1.06"),
    "NaN": (lambda: standard(speck=np.nan), "1 pixels are NaN or infinite"),
    "infinite": (lambda: standard(speck=-np.inf), "NaN or infinite"),
}


@pytest.mark.parametrize(("make", "why"), NOT_STANDARDIZED.values(), ids=NOT_STANDARDIZED.keys())
def test_not_standardized(make, why):
    with pytest.raises(InputError, match=why):
        from_standardized(make(), source=SOURCE, view=View.L_CC)

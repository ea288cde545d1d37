"""Standardization against its definition in float64, and the inputs that skip preprocessing, in small frames."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glam_deploy.errors import InputError, Remedy
from glam_deploy.preprocess import from_cropped, from_standardized, standardize, whole_frame
from glam_deploy.records import Source, View

SHAPE = (6, 4)
SOURCE = Source(name="array", kind="array")
SIGNS = np.where(np.indices(SHAPE).sum(axis=0) % 2, -1, 1)
"""Mean 0 and standard deviation 1, both exactly."""


@given(pixels=arrays(np.uint16, SHAPE, elements=st.integers(0, 65535), unique=True))
def test_every_pixel_loses_the_mean_and_is_divided_by_the_deviation(pixels: np.ndarray) -> None:
    image, exact = pixels.astype(np.float32), pixels.astype(np.float64)
    assert standardize.standardize(image) is None
    np.testing.assert_allclose(image, (exact - exact.mean()) / exact.std(), rtol=0, atol=1e-6)


def test_a_deviation_below_the_published_floor_counts_as_the_floor() -> None:
    for deviation, divisor in ((1e-6, 1e-5), (0, 1e-5), (1e-4, 1e-4)):
        image = (SIGNS * deviation).astype(np.float32)
        standardize.standardize(image)
        np.testing.assert_allclose(image, SIGNS * deviation / divisor, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_a_standardized_input_of_any_float_type(dtype: str) -> None:
    made = from_standardized(
        np.asfortranarray(SIGNS.astype(dtype)), source=SOURCE, view=View.R_MLO, network_shape=SHAPE
    )
    np.testing.assert_array_equal(made.image, SIGNS)
    assert made.image.dtype == np.float32 and made.image.dtype.isnative and made.image.flags.c_contiguous
    assert (made.source, made.view, made.notices) == (SOURCE, View.R_MLO, ())
    assert made.placement == whole_frame(SHAPE)


@pytest.mark.parametrize(
    ("image", "accepted"),
    [
        (SIGNS + 0.0625, True),
        (SIGNS - 0.0625, True),
        (SIGNS * 1.0625, True),
        (SIGNS * 0.9375, True),
        (SIGNS + 0.0626, False),
        (SIGNS - 0.0626, False),
        (SIGNS * 1.0626, False),
        (SIGNS * 0.9374, False),
    ],
)
def test_the_tolerance_itself_is_within(image: np.ndarray, accepted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tolerance that binary numbers hold exactly."""
    monkeypatch.setattr(standardize, "TOLERANCE", 0.0625)
    if accepted:
        assert from_standardized(image, source=SOURCE, network_shape=SHAPE).view is None
        return
    moments = f"mean is {image.mean():.4g} and its standard deviation {image.std():.4g}"
    with pytest.raises(InputError, match=moments) as caught:
        from_standardized(image, source=SOURCE, network_shape=SHAPE)
    assert caught.value.remedies == (Remedy.RAW,)


def test_pixels_that_are_no_numbers_are_counted() -> None:
    image = SIGNS.astype(np.float32)
    image[0, :2], image[3, 3] = np.nan, np.inf
    with pytest.raises(InputError, match=r"^3 pixels are NaN or infinite"):
        from_standardized(image, source=SOURCE, network_shape=SHAPE)


@pytest.mark.parametrize("image", [SIGNS, SIGNS.astype(np.float32)[:5], SIGNS.astype(np.float32)[None]])
def test_an_input_of_another_type_or_shape(image: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"float array of shape \(6, 4\), this is ") as caught:
        from_standardized(image, source=SOURCE, network_shape=SHAPE)
    assert caught.value.remedies == (Remedy.RAW,)


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_a_cropped_input_is_standardized_here(dtype: str) -> None:
    pixels = np.asfortranarray((SIGNS * 5 + 1000).astype(dtype))
    made = from_cropped(pixels, source=SOURCE, view=View.L_CC, network_shape=SHAPE)
    np.testing.assert_array_equal(made.image, SIGNS)
    assert made.image.dtype == np.float32 and made.image.flags.c_contiguous
    assert (made.source, made.view, made.placement) == (SOURCE, View.L_CC, whole_frame(SHAPE))
    assert [notice.code for notice in made.notices] == ["standardized-here"]
    assert made.notices[0].message.startswith("the pixels had mean 1000 and standard deviation 5,")


@pytest.mark.parametrize(
    "pixels",
    [SIGNS.astype(np.float32), SIGNS.astype(np.int16), (SIGNS + 5).astype(np.uint16)[:5], SIGNS.astype(np.uint8)],
)
def test_a_cropped_input_of_another_type_or_shape(pixels: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"must be uint16 of shape \(6, 4\)"):
        from_cropped(pixels, source=SOURCE, network_shape=SHAPE)


def test_a_constant_image_is_refused_with_its_value() -> None:
    with pytest.raises(InputError, match=r"^Every pixel is 7:"):
        from_cropped(np.full(SHAPE, 7, np.uint16), source=SOURCE, network_shape=SHAPE)
    with pytest.raises(InputError, match=r"^Every pixel is -0\.25:"):
        from_standardized(np.full(SHAPE, -0.25), source=SOURCE, network_shape=SHAPE)


def test_the_frame_of_an_input_is_its_source() -> None:
    place = whole_frame(SHAPE)
    assert (place.source_shape, place.crop_window, place.network_shape) == (SHAPE, (0, 6, 0, 4), SHAPE)
    assert replace(place, half_turn=True) != place and not place.half_turn and place.mirrored is False
    assert (place.row_shift, place.column_shift, place.best_center) == (0, 0, None)

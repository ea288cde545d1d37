import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from glam_deploy.errors import UsageError
from glam_deploy.outputs import panel
from glam_deploy.outputs.overlay import (
    _draw_box,
    _scaled,
    grey,
    overlay,
    shown_shape,
    to_png,
    unseen_foreground,
    window,
)
from glam_deploy.outputs.panel import COLOURS, tint
from glam_deploy.records import Notice

MACHADO_2009 = {  # severity 1, linear RGB (Machado, Oliveira, Fernandes, IEEE TVCG 15(6), table 1)
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def white_extent(picture, rows, columns):
    """Half-open box around the pure white in a part of the picture."""
    white = (picture[rows, columns] == 255).all(axis=2)
    down, across = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    return down[0] + rows.start, across[0] + columns.start, down[-1] + 1 + rows.start, across[-1] + 1 + columns.start


@pytest.mark.parametrize("mirrored", [False, True])
def test_boxes_stand_where_the_patches_are(make_result, right, mirrored):
    dark = np.zeros((3000, 2000), np.uint16)
    locations = np.array([[1600, 960]], np.int64)
    result = make_result(patch_locations=locations, **({"placement": right} if mirrored else {}))
    picture = overlay(dark, result)
    rows, columns = shown_shape((3000, 2000))
    scale = rows / 3000
    expected = np.array([1640, 528, 2152, 1040] if mirrored else [1640, 980, 2152, 1492]) * scale
    below_label = slice(int(expected[0]), rows)
    found = white_extent(picture, below_label, slice(0, columns))
    assert np.abs(np.array(found) - expected).max() <= 1


def test_patches_that_share_a_place_share_a_label(make_result, pixels):
    apart = make_result(patch_locations=np.array([[160, 320], [160, 320]], np.int64))
    alone = make_result(patch_locations=np.array([[160, 320]], np.int64))
    columns = shown_shape(pixels.shape)[1]
    differs = (overlay(pixels, apart) != overlay(pixels, alone)).any(axis=2)[:, :columns]
    assert 0 < differs.sum() < 2000, "one more number beside the first, no second box"


def test_a_patch_of_padding_alone_has_no_box(make_result):
    placement = make_result().input.placement
    small = type(placement)(
        source_shape=(900, 700), crop_window=(0, 900, 0, 700), mirrored=False, row_shift=0, column_shift=0,
        best_center=None,
    )  # fmt: skip
    result = make_result(placement=small, patch_locations=np.array([[1600, 960]], np.int64))
    picture = overlay(np.full((900, 700), 100, np.uint8), result)
    assert picture.shape == (900, 700 + panel.WIDTH, 3)
    assert len(np.unique(picture[:, :700])) == 1


def test_quiet_saliency_leaves_the_image_bit_for_bit(make_result, pixels):
    rows, columns = shown_shape(pixels.shape)
    picture = overlay(pixels, make_result(patch_locations=np.array([[2400, 1400]], np.int64)))[:rows, :columns]
    left = picture[:, : columns // 2]
    assert (left[..., 0] == left[..., 1]).all() and (left[..., 0] == left[..., 2]).all()
    assert (left[:40] == 0).all(), "background stays black"


@pytest.mark.parametrize(("index", "strong", "weak"), [(0, 2, 0), (1, 0, 2)])
def test_a_finding_has_its_colour_in_its_place(make_result, pixels, index, strong, weak):
    patches = np.zeros((1, 2, 128, 128), np.float32)
    patches[0, index, 60:68, 60:68] = 1
    result = make_result(
        saliency_global=np.zeros((2, 184, 120), np.float32),
        saliency_patches=patches,
        patch_locations=np.array([[1600, 320]], np.int64),
    )
    rows, columns = shown_shape(pixels.shape)
    picture = overlay(pixels, result)[:, :columns].astype(int)
    tinted = (picture[..., strong] - picture[..., weak]) > 30
    down, across = np.nonzero(tinted)
    # Patch cells 60..67 of 4 pixels: network rows 1840..1871 and columns 560..591, shifted by (40, 20).
    expected = np.array([1880, 1912, 580, 612]) * rows / 3000
    found = np.array([down.min(), down.max() + 1, across.min(), across.max() + 1])
    assert np.abs(found - expected).max() <= 1


def test_tint_is_plain_alpha_blending_with_malignant_on_top():
    grey = np.full((1, 3), 100, np.uint8)
    saliency = np.array([[[0.1, 1.0, 1.0]], [[0.1, 0.0, 1.0]]], np.float32)
    benign = [100 + 0.65 * (c - 100) for c in COLOURS["benign"]]
    both = [b + 0.65 * (c - b) for b, c in zip(benign, COLOURS["malignant"], strict=True)]
    np.testing.assert_allclose(tint(grey, saliency)[0], [[100] * 3, benign, both], atol=0.51)


@pytest.mark.parametrize("kind", MACHADO_2009)
def test_the_colours_differ_for_every_kind_of_colour_blindness(kind):
    srgb = np.array([*COLOURS.values(), (128, 128, 128)], np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(MACHADO_2009[kind]).T, 0, 1).astype(np.float32)
    benign, malignant, grey = cv2.cvtColor(seen[None], cv2.COLOR_LRGB2Lab)[0]
    assert np.linalg.norm(benign - malignant) > 40
    assert min(np.linalg.norm((benign - grey)[1:]), np.linalg.norm((malignant - grey)[1:])) > 20


@pytest.mark.parametrize("side", ["left", "right", "top"])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_patch_that_is_nearly_all_padding_is_drawn(make_result, pixels, side, width):
    columns = pixels.shape[1]
    box = {"left": (9, 0, 500, width), "right": (9, columns - width, 500, columns), "top": (0, 9, width, 500)}[side]
    blank = np.zeros((1600, 1200, 3), np.uint8)
    scaled = _scaled(box, pixels.shape, blank.shape)
    image = Image.fromarray(blank)
    _draw_box(ImageDraw.Draw(image), scaled, "")
    assert np.asarray(image).max() == 255


def test_window_keeps_background_black_and_the_skin_line_off_it():
    values = np.array([0, 1000, 2000, 3000, 65535], np.uint16)
    np.testing.assert_array_equal(window(values, 1000, 3000), [0, 20, 137, 255, 255])


def test_windowing_ignores_a_film_label_outside_the_crop(make_result, pixels):
    labelled = pixels.copy()
    labelled[50:300, 1965:1998] = 65535
    columns = shown_shape(pixels.shape)[1] // 2
    np.testing.assert_array_equal(
        overlay(labelled, make_result())[:, :columns], overlay(pixels, make_result())[:, :columns]
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_grey_does_not_depend_on_the_type(make_result, pixels, dtype):
    scaled = (pixels // 5).astype(np.uint8)
    plain, other = (overlay(p, make_result()).astype(int) for p in (scaled.astype(np.uint16), scaled.astype(dtype)))
    assert np.abs(plain - other).max() <= 3  # averages are rounded to the type; half a step is three greys here


@given(rows=st.integers(1, 20000), columns=st.integers(1, 20000))
def test_a_picture_fits_and_keeps_its_ratio(rows, columns):
    shown = shown_shape((rows, columns))
    assert 1 <= shown[0] <= min(rows, 1600) and 1 <= shown[1] <= min(columns, 1600 - panel.WIDTH)
    scale = min(1, 1600 / rows, (1600 - panel.WIDTH) / columns)
    assert abs(shown[0] - rows * scale) <= 1 and abs(shown[1] - columns * scale) <= 1


@pytest.mark.parametrize("shape", [(300, 4000), (4000, 300)])
def test_odd_shapes_leave_room_for_the_whole_panel(make_result, shape):
    placement = type(make_result().input.placement)(
        source_shape=shape, crop_window=(0, shape[0], 0, shape[1]), mirrored=False, row_shift=0, column_shift=0,
        best_center=None,
    )  # fmt: skip
    picture = overlay(np.full(shape, 7, np.uint8), make_result(placement=placement))
    assert max(picture.shape) <= 1600 and picture.shape[0] >= panel.MIN_HEIGHT


def test_six_patches_and_many_notices_end_above_the_banner(make_result):
    notices = tuple(Notice(code="background-not-zero", message="m") for _ in range(9))
    result = make_result(
        patch_locations=np.zeros((6, 2), np.int64),
        y_fusion=np.array([1, 1], np.float32),
        attention=np.full(6, 1 / 6, np.float32),
        notices=notices,
    )
    drawn = panel.panel(result, panel.MIN_HEIGHT, hatched=True)
    banner_top = int(np.flatnonzero((drawn == panel.BANNER).all(axis=(1, 2)))[0])
    gap = drawn[banner_top - 12 : banner_top]
    assert (gap == panel.BACKGROUND).all(), "nothing written just above the banner"
    edges = drawn[:banner_top, [0, 1, 2, -3, -2, -1]]
    assert (edges == panel.BACKGROUND).all(), "nothing runs out of the panel"


@pytest.mark.parametrize("mirrored", [False, True])
def test_tissue_outside_the_window_is_hatched(make_result, right, mirrored):
    """Crop minus window where the image is not 0, worked out by hand: placements of conftest.py, scaled."""
    placement = right if mirrored else make_result().input.placement
    image = np.zeros((3000, 2000), np.uint16)
    image[:, 10:1990] = 1000
    rows, columns = shown_shape(image.shape)
    assert (rows, columns) == (1600, 1067)
    expected = np.zeros((rows, columns), bool)
    if not mirrored:  # crop: rows 10..2990, columns 0..1960; window: rows 40..2984, columns 20..1940
        expected[5:1595, 6:1046] = True
        expected[21:1591, 11:1035] = False
    found = unseen_foreground(image, placement, (rows, columns))
    np.testing.assert_array_equal(found, expected)
    quiet = {"saliency_global": np.zeros((2, 184, 120), np.float32), "patch_locations": np.zeros((0, 2), np.int64),
             "saliency_patches": np.zeros((0, 2, 128, 128), np.float32)}  # fmt: skip
    picture = overlay(image, make_result(placement=placement, **quiet))[:, :columns, 0]
    plain = grey(image, placement.crop_window, (rows, columns))
    np.testing.assert_array_equal(picture[~found], plain[~found])
    if not mirrored:
        for colour in (0, 255):
            assert 0.05 < ((picture == colour) & (plain != colour))[found].mean() < 0.2


def test_the_panel_explains_the_hatching(make_result):
    without, with_it = (panel.panel(make_result(), 1600, hatched=hatched) for hatched in (False, True))
    assert (without != with_it).any()
    np.testing.assert_array_equal(without[:300], with_it[:300])


@pytest.mark.parametrize("bad", [np.zeros((2000, 3000), np.uint16), np.zeros((3000, 2000), np.int32)])
def test_other_pixels_than_the_results_are_refused(make_result, bad):
    with pytest.raises(UsageError, match=r"\(3000, 2000\)"):
        overlay(bad, make_result())


def test_another_library_reads_the_png():
    picture = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(to_png(picture))) as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), picture)

"""A background above 0 behind a rim of any shape is refused or told; sound views are not.

What was put into an image is known: see `views`.
"""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from glam_deploy.errors import InputError
from glam_deploy.preprocess import place
from glam_deploy.records import Mammogram, Pixels, Source, View

from . import views

CAUSES = {"background-not-zero", "dark-surroundings", "attached-foreground", "straight-outline", "hard-outline"}
PLACE = {"off-chest-wall", "tissue-outside-window"}


def told(sample: Mammogram) -> set[str]:
    """The codes of the notices about what lies around the breast; {"refused"} for a refusal."""
    try:
        return {notice.code for notice in place(sample).notices} - PLACE
    except InputError:
        return {"refused"}


LEVELS = (1, 4, 40, 120, 400, 800, 1400, 2000)
ALL_RIMS = views.RIMS + views.RIMS_OF_ONE_SIDE
GRID = [
    pytest.param(
        *(rim, kind, (1, 5, 20, 60, 110)[(i + 2 * j) % 5], LEVELS[(3 * i + j) % len(LEVELS)], (i + j) % 2 == 1),
        marks=() if (i + j) % 2 else pytest.mark.slow,
    )
    for i, rim in enumerate(ALL_RIMS)
    for j, kind in enumerate(views.BACKGROUNDS)
]


@pytest.mark.parametrize(("rim", "kind", "width", "level", "mlo"), GRID)
def test_a_background_behind_a_rim_is_never_silent(rim: str, kind: str, width: int, level: int, mlo: bool) -> None:
    pixels = views.behind_rim(views.sound(7, mlo=mlo), rim, width, kind, level)
    assert told(views.stored(pixels, "R-MLO" if mlo else "L-CC")) & (CAUSES | {"refused"})


@pytest.mark.slow
@pytest.mark.parametrize("rim", ALL_RIMS)
@pytest.mark.parametrize("mlo", [False, True])
def test_a_wider_grid(rim: str, mlo: bool) -> None:
    """60 of each shape and view, half of them with the background added to the tissue, too."""
    sample = views.sound(8, mlo=mlo)
    silent = [
        (width, kind, level, added)
        for i, width in list(enumerate((1, 5, 20, 60, 110, 200)))[mlo::2]
        for j, kind in enumerate(views.BACKGROUNDS)
        for added in (False, True)
        for level in (LEVELS[(i + j + 4 * added) % len(LEVELS)],)
        if not told(views.stored(views.behind_rim(sample, rim, width, kind, level, added=added)))
    ]
    assert silent == []


@pytest.mark.parametrize("kind", ["gradient", "down", "back"])
def test_a_smooth_background_is_refused_by_its_name(kind: str) -> None:
    pixels = views.behind_rim(views.sound(3, mlo=True), "contour", 60, kind, 350)
    with pytest.raises(InputError, match="background is not 0"):
        place(views.stored(pixels, "R-MLO"))


def test_values_that_tissue_has_too_are_not_advised_as_padding() -> None:
    pixels = views.behind_rim(views.sound(3, mlo=True), "contour", 60, "gradient", 350)
    facts = {"photometric_interpretation": "MONOCHROME2", "bits_stored": 12}
    with pytest.raises(InputError) as caught:
        place(Mammogram(pixels=pixels, view=View.L_MLO, source=Source(name="a", kind="dicom", facts=facts)))
    assert str(caught.value).endswith("Export it with a background of 0.")


@pytest.mark.parametrize("seed", range(3))
def test_sound_views_pass(seed: int) -> None:
    for name, pixels, view, notices in views.variants(seed):
        codes = told(views.stored(pixels, view, notices=notices))
        # in an implant tissue's level is the implant's, and a thin breast around it is dark
        allowed = {"partial": {"partial-view", "tissue-at-far-edge"}, "implant": {"dark-surroundings"}}
        assert codes <= allowed.get(name, set()), (name, codes)


def test_noise_of_a_scanner_is_told_as_noise_alone() -> None:
    sample = views.sound(4)
    noise = np.random.default_rng(1).integers(0, 3, sample.shape).astype(np.uint16)
    assert told(views.stored(np.where(sample > 0, sample, noise))) == {"background-not-zero"}
    sparse = np.where(np.random.default_rng(2).random(sample.shape) < 0.1, 2, 0).astype(np.uint16)
    assert told(views.stored(np.where(sample > 0, sample, sparse))) == set()


@pytest.mark.parametrize("cut", [25, 60])
def test_a_skin_that_is_cut_off_is_told(cut: int) -> None:
    """By a program that sets everything near the edge to 0, say."""
    sample = views.sound(5)
    pixels = np.where(views.depth_of(sample > 0) > cut, sample, 0).astype(np.uint16)
    assert told(views.stored(pixels)) == {"hard-outline"}


@pytest.mark.parametrize("view", ["L-CC", "R-CC"])
def test_a_background_around_the_breast_is_not_called_a_wrong_side(view: str) -> None:
    """Behind a rim all round, the background comes nearer to the far edge than to the chest wall."""
    for rim, small in (("far oval", 0.4), ("ring", 0.2)):
        pixels = views.behind_rim(views.sound(6, height=small, reach=1.5 * small), rim, 60, "gradient", 300)
        with pytest.raises(InputError) as caught:
            place(views.stored(pixels, view))
        assert "aterality" not in str(caught.value)


def test_a_mirrored_view_behind_a_rim_is_still_called_mirrored() -> None:
    sample = views.sound(6)
    sample[:, :9] = 0
    with pytest.raises(InputError, match="Laterality wrong or stored mirrored"):
        place(views.stored(sample[:, ::-1]))


def _uniform_fat(*, cut: int = 0, rise: int = 60) -> Pixels:
    """A view of uniform fat around a gland: `rise` pixels from 0 at the skin, of which `cut` are set to 0."""
    row, column = np.mgrid[0:2294, 0:1914].astype(np.float32)
    breast = ((row - 1150) / 850) ** 2 + (column / 1150) ** 2 < 1
    padded = np.pad(breast, ((0, 0), (300, 0)), mode="edge").astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[:, 300:]
    gland = cv2.GaussianBlur(
        (((row - 1150) / 450) ** 2 + ((column - 100) / 650) ** 2 < 1).astype(np.float32), (0, 0), 25
    )
    noise = np.random.default_rng(0).normal(0, 20, breast.shape)
    values = np.clip(depth / rise, 0, 1) ** 0.7 * 1200 + 1400 * gland + noise
    return np.where(breast & (depth > cut), np.clip(values, 1, 4095), 0).astype(np.uint16)


def _equalized(pixels: Pixels) -> Pixels:
    """Each value above 0 becomes the share of the image's pixels up to it."""
    _, inverse, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    ranks = (4095 * np.cumsum(counts) / counts.sum()).astype(np.uint16)
    return np.where(pixels > 0, ranks[inverse].reshape(pixels.shape), 0)


SKINLESS: dict[str, Callable[[], Pixels]] = {
    "cut at 45": lambda: _uniform_fat(cut=45),
    "cut at 60": lambda: _uniform_fat(cut=60),
    "rises within 2 pixels": lambda: _uniform_fat(rise=2),
    "equalized": lambda: _equalized(_uniform_fat()),
}


@pytest.mark.parametrize("kind", SKINLESS)
@pytest.mark.parametrize("dicom", [False, True])
def test_a_refusal_of_fat_without_skin_names_the_skin_and_what_helps(kind: str, dicom: bool) -> None:
    pixels = SKINLESS[kind]()
    facts = {"photometric_interpretation": "MONOCHROME2", "bits_stored": 12} if dicom else {}
    source = Source(name="a", kind="dicom" if dicom else "png", facts=facts)
    with pytest.raises(InputError, match=r"or the skin was cut off: .*use the image as it left the detector"):
        place(Mammogram(pixels=pixels, view=View.L_CC, source=source))


def test_a_dark_background_is_no_skin_that_was_cut_off() -> None:
    pixels = views.behind_rim(views.sound(3), "contour", 60, "constant", 40)
    with pytest.raises(InputError, match="background is not 0: ") as caught:
        place(views.stored(pixels, "L-CC"))
    assert "skin" not in str(caught.value)

"""Images that are no longer what the detector made: each fault is put into a sound view, which itself passes."""

from collections.abc import Callable

import numpy as np
import pytest

from glam_deploy.errors import InputError
from glam_deploy.preprocess import place
from glam_deploy.records import Mammogram, Pixels, Source, View

from . import views
from .test_outline import PLACE, told

BREAST = {False: views.sound(11), True: views.sound(12, mlo=True)}
ROW, COLUMN = 480, 150


def refusal(sample: Mammogram) -> str:
    with pytest.raises(InputError) as caught:
        place(sample)
    return str(caught.value)


def filled(where: slice, value: float, *, columns: bool = False, inside: bool = False) -> Callable[[Pixels], Pixels]:
    """Rows or columns set to a value: all of them, or what was above 0."""

    def fill(pixels: Pixels) -> Pixels:
        made = pixels.copy()
        lines = made.T[where] if columns else made[where]
        lines[...] = np.where((lines > 0) | (not inside), value, lines)
        return made

    return fill


@pytest.mark.parametrize("mlo", [False, True])
@pytest.mark.parametrize("count", [1, 16, 90])
def test_empty_lines_through_the_breast_are_refused_with_their_numbers(mlo: bool, count: int) -> None:
    """Of a breast that is cut in two, only the larger part would be found."""
    last = ROW + count - 1
    message = refusal(views.stored(filled(slice(ROW, ROW + count), 0)(BREAST[mlo])))
    assert message.startswith(f"Row {ROW} has" if count == 1 else f"Rows {ROW} to {last} have")
    assert "divide" in message and "export the image again" in message
    cut = filled(slice(COLUMN, COLUMN + count), 0, columns=True)(BREAST[mlo])
    for view, first in (("L-CC", COLUMN), ("R-CC", 760 - COLUMN - count)):
        message = refusal(views.stored(cut, view))
        where = f"Column {first} has" if count == 1 else f"Columns {first} to {first + count - 1} have"
        assert message.startswith(where), "the columns are those of the stored image"


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("count", [1, 16])
def test_lines_of_one_value_are_told(inside: bool, columns: bool, count: int) -> None:
    start = COLUMN if columns else ROW
    pixels = filled(slice(start, start + count), 700, columns=columns, inside=inside)(BREAST[False])
    assert told(views.stored(pixels)) == {"lost-lines"}


def test_a_line_that_is_repeated_is_told() -> None:
    pixels = BREAST[True].copy()
    pixels[ROW : ROW + 12] = pixels[ROW]
    assert told(views.stored(pixels, "R-MLO")) == {"lost-lines"}


@pytest.mark.parametrize("mlo", [False, True])
@pytest.mark.parametrize("view", ["L", "R"])
@pytest.mark.parametrize(("axis", "by"), [(0, 480), (0, -420), (1, -130), (1, -300)])
def test_an_image_that_is_shifted_around_its_borders_is_refused(mlo: bool, view: str, axis: int, by: int) -> None:
    pixels = np.roll(BREAST[mlo], by, axis=axis)
    message = refusal(views.stored(pixels, f"{view}-{'MLO' if mlo else 'CC'}"))
    assert f"The last {'column' if axis else 'row'} continues the first" in message
    assert "undo the shift" in message and "aterality" not in message


@pytest.mark.parametrize("kind", ["dicom", "png", "tiff", "npy"])
@pytest.mark.parametrize("values", [(1,), (100, 200), (4095,), (50, 100, 150)])
def test_a_mask_in_a_file_is_told(kind: str, values: tuple[int, ...]) -> None:
    """As bands across the breast: where one value lies along the whole outline, it is refused as a background."""
    bands = np.arange(1000)[:, None] // 100 % len(values) + np.zeros((1, 760), np.int64)
    pixels = np.where(BREAST[False] > 0, np.array(values, np.uint16)[bands], 0).astype(np.uint16)
    source = Source(name="mask", kind=kind, facts={"photometric_interpretation": "MONOCHROME2", "bits_stored": 12})
    few = place(Mammogram(pixels=pixels, view=View.L_CC, source=source)).notices[0]
    assert few.code == "few-values"
    assert all(f"{value}" in few.message for value in values)


def test_clipped_tissue_is_told_with_its_share() -> None:
    sample = BREAST[False]
    limit = np.percentile(sample[sample > 0], 80)
    clipped = np.minimum(sample, limit).astype(np.uint16)
    notices = place(views.stored(clipped)).notices
    assert [notice.code for notice in notices] == ["saturated"]
    share = 100 * np.count_nonzero(clipped == clipped.max()) / np.count_nonzero(clipped)
    assert abs(int(notices[0].message.split()[0]) - share) <= 1


def test_an_mlo_view_that_is_upside_down_is_told() -> None:
    for seed in range(4):
        flipped = views.sound(seed, mlo=True)[::-1]
        (notice,) = place(views.stored(flipped, "R-MLO")).notices
        assert notice.code == "upside-down"
        assert "may be stored upside down" in notice.message
        assert told(views.stored(flipped, "R-CC")) == set(), "a CC view has no upper side of its own"


def test_a_constant_added_to_the_tissue_is_told() -> None:
    sample = BREAST[True]
    for added in (1200, 2000):
        assert told(views.stored(np.where(sample > 0, sample + added, 0).astype(np.uint16))) == {"hard-outline"}


@pytest.mark.slow
def test_no_sound_view_is_told_anything() -> None:
    """300 of them; an implant makes the thin breast around it look dark, and a partial view says so itself."""
    alarms = [
        (seed, name, codes)
        for seed in range(20)
        for name, pixels, view, notices in views.variants(seed)
        if (codes := told(views.stored(pixels, view, notices=notices)) - PLACE - {"partial-view", "tissue-at-far-edge"})
        and (name, codes) != ("implant", {"dark-surroundings"})
    ]
    assert alarms == []

"""What is told of a background, a side and an outline; the sound view is the truth, and each fault is made from it.

Tissue here has texture and a skin of a sixth of its peak, built apart from the product's own phantoms.
"""

from collections.abc import Callable
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glam_deploy.errors import Caller, InputError
from glam_deploy.preprocess import place
from glam_deploy.records import Mammogram, Notice, Pixels, PlacedView, Source, View

ROWS, COLUMNS = 900, 700
PARTIAL = Notice(code="partial-view", message="PartialView is YES")


@cache
def tissue(reach: float = 0.7, height: float = 0.42) -> Pixels:
    """uint16 [900, 700], facing right, 12 bits, background 0."""
    rows, columns = np.mgrid[0:ROWS, 0:COLUMNS]
    d = ((rows - 450) / (ROWS * height)) ** 2 + (columns / (COLUMNS * reach)) ** 2
    texture = 250 * np.sin(rows / 23) * np.cos(columns / 31) + np.random.default_rng(3).normal(0, 40, d.shape)
    pixels = np.where(d < 1, np.clip(400 + 2000 * (1 - d) + texture, 8, 4095), 0).astype(np.uint16)
    pixels.setflags(write=False)
    return pixels


def placed(pixels: Pixels, *, mirrored: bool = False, **more: object) -> PlacedView:
    stored = np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)
    return place(Mammogram(pixels=stored, view=View.L_CC, **more))  # type: ignore[arg-type]


def refusal(pixels: Pixels, **more: object) -> str:
    with pytest.raises(InputError) as caught:
        placed(pixels, **more)  # type: ignore[arg-type]
    return str(caught.value)


def told(pixels: Pixels, **more: object) -> set[str]:
    return {notice.code for notice in placed(pixels, **more).notices}  # type: ignore[arg-type]


def over(values: Pixels | int, pixels: Pixels) -> Pixels:
    """`values` in place of the background."""
    return np.where(pixels > 0, pixels, values).astype(np.uint16)


def noise(low: int, high: int) -> Pixels:
    return np.random.default_rng(2).integers(low, high + 1, (ROWS, COLUMNS), np.uint16)


def gradient(low: float, high: float) -> Pixels:
    return np.broadcast_to(np.linspace(low, high, COLUMNS), (ROWS, COLUMNS))


def film() -> Pixels:
    """Grey that drifts, with grain, of a tenth of the tissue."""
    rows = np.arange(ROWS)[:, None]
    return (150 + 60 * np.sin(rows / 200) + np.random.default_rng(4).normal(0, 25, (ROWS, COLUMNS))).clip(1)


def rim(pixels: Pixels, sides: str, width: int, value: int = 0) -> Pixels:
    """A frame along some of top, bottom, far edge and wall: "tbfw"."""
    framed = pixels.copy()
    for side, where in {"t": np.s_[:width], "b": np.s_[-width:], "f": np.s_[:, -width:], "w": np.s_[:, :width]}.items():
        if side in sides:
            framed[where] = value
    return framed


BACKGROUNDS: dict[str, Callable[[], Pixels | int]] = {
    "1": lambda: 1, "20": lambda: 20, "150": lambda: 150, "600": lambda: 600, "noise 1-3": lambda: noise(1, 3),
    "noise 1-60": lambda: noise(1, 60), "gradient": lambda: gradient(1, 150), "film": film,
}  # fmt: skip


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("sides", ["", "tbf", "t"])
@pytest.mark.parametrize("width", [35, 105])
@pytest.mark.parametrize("shape", [(0.7, 0.42), (0.4, 0.3)])
def test_a_background_is_refused_behind_any_rim(
    background: str, sides: str, width: int, shape: tuple[float, float]
) -> None:
    pixels = rim(over(BACKGROUNDS[background](), tissue(*shape)), sides, width)
    message = refusal(pixels)
    assert message.startswith("The background is ")
    assert "mirrored" not in message


@settings(max_examples=25)
@given(
    sides=st.sets(st.sampled_from("tbf")), width=st.integers(1, 110), low=st.integers(1, 40), spread=st.integers(0, 30),
    reach=st.floats(0.4, 0.8), height=st.floats(0.3, 0.45), slant=st.floats(-0.05, 0.05), flipped=st.booleans(),
)  # fmt: skip
def test_no_background_passes_in_silence(
    sides: set[str], width: int, low: int, spread: int, reach: float, height: float, slant: float, flipped: bool
) -> None:
    """Also behind a rim that is not upright; mirrored, it must not pass either."""
    pixels = rim(over(noise(low, low + spread), tissue(round(reach, 1), round(height, 1))), "".join(sides), width)
    rows, columns = np.mgrid[0:ROWS, 0:COLUMNS]
    pixels[columns > COLUMNS * 0.97 + slant * (rows - 450)] = 0
    assert "background" in refusal(pixels, mirrored=flipped)


@settings(max_examples=25)
@given(
    top=st.integers(0, 860), left=st.integers(540, 690), height=st.integers(1, 90), width=st.integers(1, 150),
    value=st.integers(1, 4095), specks=st.integers(0, 400), frame=st.integers(0, 12), seed=st.integers(0, 99),
)  # fmt: skip
def test_labels_specks_and_frames_change_nothing(
    top: int, left: int, height: int, width: int, value: int, specks: int, frame: int, seed: int
) -> None:
    """Of a sound view: what the erosion removes is no background, and no reason to refuse."""
    pixels, rng = tissue().copy(), np.random.default_rng(seed)
    pixels[top : top + height, left : left + width] = np.maximum(pixels[top : top + height, left : left + width], value)
    pixels[rng.integers(0, ROWS, specks), rng.integers(0, COLUMNS, specks)] = 3
    pixels = rim(pixels, "t", frame, value) if frame else pixels
    sound = placed(tissue())
    made = placed(pixels)
    assert made.notices == ()
    top_of, bottom_of = sound.placement.crop_window[:2]
    assert abs(made.placement.crop_window[0] - top_of) <= max(30, frame + 30)
    assert made.placement.crop_window[1] == bottom_of or specks or height


@pytest.mark.parametrize("high", [3, 200])
def test_noise_with_zeros_between_is_told_and_the_crop_is_that_of_the_sound_view(high: int) -> None:
    pixels = over(noise(0, high), tissue())
    assert told(pixels) == {"background-not-zero"}
    made, sound = placed(pixels).placement.crop_window, placed(tissue()).placement.crop_window
    assert max(abs(a - b) for a, b in zip(made, sound, strict=True)) <= 40


def test_a_gradient_as_bright_as_fat_is_refused() -> None:
    """It has the grey of skin, but is a plane with a step at its outline."""
    pixels = over(gradient(1, 400), tissue())
    assert "background" in refusal(pixels)
    rows, columns = np.mgrid[0:ROWS, 0:COLUMNS]
    oval = ((rows - 450) / (ROWS * 0.49)) ** 2 + (columns / (COLUMNS * 0.97)) ** 2 < 1
    assert "background" in refusal(np.where(oval, pixels, 0).astype(np.uint16))


@pytest.mark.parametrize("background", ["1", "20", "150", "600", "noise 1-3"])
def test_a_background_in_an_oval_is_refused(background: str) -> None:
    rows, columns = np.mgrid[0:ROWS, 0:COLUMNS]
    oval = ((rows - 450) / (ROWS * 0.49)) ** 2 + (columns / (COLUMNS * 0.97)) ** 2 < 1
    pixels = np.where(oval, over(BACKGROUNDS[background](), tissue()), 0).astype(np.uint16)
    assert refusal(pixels).startswith("The background is ")


def test_an_inverted_image_is_called_inverted() -> None:
    for pixels in (4095 - tissue(), rim(4095 - tissue(), "tbf", 30), 4095 - over(noise(0, 20), tissue())):
        message = refusal(pixels.astype(np.uint16))
        assert "seems to be inverted (MONOCHROME1): invert it" in message
        assert "Set the" not in message


def dicom(photometric: str, **more: object) -> dict[str, object]:
    facts = {"photometric_interpretation": photometric, "bits_stored": 12} | more
    return {"source": Source(name="a.dcm", kind="dicom", facts=facts)}


def test_monochrome1_below_full_scale_is_told_as_it_is_stored() -> None:
    """The reader has inverted it already: 4095 - 3995 is 100."""
    message = refusal(over(100, tissue()), **dicom("MONOCHROME1"))
    assert "the background is stored as 3995, expected 4095" in message
    assert "PixelPaddingValue 3995" in message
    assert "invert it" not in message
    message = refusal(over(noise(90, 100), tissue()), **dicom("MONOCHROME1"))
    assert "PixelPaddingValue 3995 and PixelPaddingRangeLimit 4005" in message


def test_monochrome2_is_given_a_remedy_in_its_own_terms() -> None:
    assert "PixelPaddingValue 20 " in refusal(over(20, tissue()), **dicom("MONOCHROME2"))
    message = refusal((4095 - tissue()).astype(np.uint16), **dicom("MONOCHROME2"))
    assert "PhotometricInterpretation is MONOCHROME2: correct it" in message


def test_the_advised_padding_is_all_of_the_background() -> None:
    for low, high in ((20, 40), (3, 5), (97, 130)):
        message = refusal(over(noise(low, high), tissue()), **dicom("MONOCHROME2"))
        assert f"PixelPaddingValue {low} and PixelPaddingRangeLimit {high} " in message
    mostly = np.where(np.random.default_rng(3).random((ROWS, COLUMNS)) < 0.7, 20, noise(18, 23))
    message = refusal(over(mostly, tissue()), **dicom("MONOCHROME2"))
    assert "The background is 20" in message
    assert "PixelPaddingValue 18 and PixelPaddingRangeLimit 23 " in message


# the side


def test_a_mirrored_view_is_never_called_a_background() -> None:
    for shape in ((0.7, 0.42), (0.4, 0.3), (0.95, 0.48), (0.5, 0.49)):
        message = refusal(tissue(*shape), mirrored=True)
        assert message.startswith("Laterality wrong or stored mirrored")
        assert "background" not in message
        assert message.endswith("one of L-CC, R-CC, L-MLO, R-MLO or pass horizontal_flip=True")


REMEDIES = {
    Caller.PYTHON: ("horizontal_flip=True", "--"),
    Caller.RUN: ("--horizontal-flip", "horizontal_flip"),
    Caller.GATE: ("store the image upright", "--horizontal-flip"),
    Caller.CALIBRATION: ("correct the view in the file name", "--"),
    Caller.EVALUATE: ("correct the column view", "--"),
    Caller.APPLIANCE: ("at the source of the image", "--"),
    Caller.RUN_DIR: ("at the source of the image", "--"),
    Caller.SERVER: ("at the source of the image", "--"),
    Caller.ARCHIVE: ("store the image upright", "--"),
}


@pytest.mark.parametrize("caller", Caller)
def test_the_remedy_is_one_that_the_caller_has(caller: Caller) -> None:
    with pytest.raises(InputError) as caught:
        placed(tissue(), mirrored=True)
    has, has_not = REMEDIES[caller]
    assert has in caught.value.message_for(caller)
    assert has_not not in caught.value.message_for(caller)
    assert str(caught.value.with_message_for(caller)) == caught.value.message_for(caller)


def test_tags_that_contradict_the_image_are_to_be_corrected() -> None:
    """--horizontal-flip would be refused, for PatientOrientation says that the image is not mirrored."""
    message = refusal(tissue(), mirrored=True, **dicom("MONOCHROME2"))
    assert "dcmodify" in message
    assert "horizontal_flip=" not in message
    unknown = (Notice(code="orientation-unknown", message=""),)
    flipped = refusal(tissue(), mirrored=True, notices=unknown, **dicom("M", field_of_view_horizontal_flip="YES"))
    assert "FieldOfViewHorizontalFlip is YES" in flipped
    assert "pass horizontal_flip=True" in flipped


# the outline


def partial() -> Pixels:
    """The left part of a view: tissue to the far edge."""
    return tissue()[:, :330]


def test_a_partial_view_is_its_own_case() -> None:
    message = refusal(partial())
    assert "shows only a part of the breast" in message
    assert "PartialView YES" in message
    assert "ackground to 0" not in message and "mirrored" not in message
    assert told(partial(), notices=(PARTIAL,)) == {"partial-view", "tissue-at-far-edge"}


def test_a_partial_view_hides_no_background() -> None:
    assert refusal(over(noise(1, 3)[:, :330], partial()), notices=(PARTIAL,)).startswith("The background is ")


@pytest.mark.parametrize("thickness", [215, 300])
@pytest.mark.parametrize("value", [3000, 900])
def test_a_strip_across_the_breast_is_told(thickness: int, value: int) -> None:
    """One that survives the erosion, and so becomes a part of the breast."""
    pixels = tissue().copy()
    pixels[-thickness:] = value
    assert "attached-foreground" in told(pixels)


# every pair of faults: the message names one of the two, and never a third

FAULTS: dict[str, tuple[Callable[[Pixels], Pixels], str]] = {
    "mirrored": (lambda pixels: pixels[:, ::-1], "mirrored"),
    "background": (lambda pixels: over(noise(1, 3)[:, : pixels.shape[1]], pixels), "The background is"),
    "constant": (lambda pixels: over(20, pixels), "The background is"),
    "inverted": (lambda pixels: (4095 - pixels).astype(np.uint16), "inverted"),
    "partial": (lambda pixels: pixels[:, :330], "part of the breast"),
    "rim": (lambda pixels: rim(pixels, "tb", 20), ""),
}


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "rim"])
def test_each_fault_is_named(fault: str) -> None:
    make, words = FAULTS[fault]
    assert words in refusal(np.ascontiguousarray(make(tissue())))


ORDER = ("partial", "background", "constant", "inverted", "mirrored", "rim")


@pytest.mark.parametrize(("first", "second"), list(combinations(ORDER, 2)))
def test_each_pair_of_faults_is_named_by_one_of_them(first: str, second: str) -> None:
    pixels = np.ascontiguousarray(FAULTS[second][0](np.ascontiguousarray(FAULTS[first][0](tissue()))))
    message = refusal(pixels)
    expected = {FAULTS[first][1], FAULTS[second][1]} - {""}
    assert any(words in message for words in expected)
    others = {"mirrored", "inverted", "part of the breast"} - expected
    assert not any(words in message for words in others), message
    if {first, second} & {"background", "constant"} and second == "mirrored":
        assert "The breast is at the edge opposite to the chest wall, too" in message

"""Bits above BitsStored: unrelated bits are cleared, bits that belong to a value refuse the image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mammograms import breast
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from support.streams import rle_stream, tissue

from glam_deploy.dicom.read import read_view
from glam_deploy.errors import DicomError
from glam_deploy.records import Pixels, View

Write = Callable[..., Path]
NOISE, TISSUE = breast(View.L_CC), tissue()
IMAGES = pytest.mark.parametrize("image", [NOISE, TISSUE], ids=["noise", "tissue"])
SYNTAXES = pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless], ids=["plain", "RLE"])


def _stored(write: Write, stored: Pixels, syntax: uid.UID = uid.ExplicitVRLittleEndian, **values: object) -> Path:
    """A file of 16 bits that holds `stored`, in a header of 12 bits unless `values` say otherwise."""

    def edit(dataset: Dataset) -> None:
        dataset.Rows, dataset.Columns = stored.shape
        dataset.PixelData = stored.astype("<u2").tobytes()
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    path = write(edit)
    if syntax == uid.RLELossless:
        dataset = dcmread(path)
        dataset.PixelData = encapsulate([rle_stream(stored.astype(np.uint16), 16)])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path)
    return path


def _where(condition: Pixels, bits: int) -> Callable[[Pixels], Pixels]:
    return lambda image: np.where(condition[: image.shape[0], : image.shape[1]], image | bits, image)


_ROWS, _COLUMNS = np.mgrid[:96, :80]
_LINES = (_ROWS % 30 == 7) | (_COLUMNS % 45 == 5)
_AREA = (_ROWS > 20) & (_COLUMNS < 33)
HARMLESS: dict[str, Callable[[Pixels], Pixels]] = {
    "a bit that is set everywhere": lambda image: image | 0x8000,
    "all bits that are set everywhere": lambda image: image | 0xF000,
    "a cross-hair in the highest bit": _where((_ROWS == 50) | (_COLUMNS == 20), 0x8000),
    "a cross-hair in the next bit": _where((_ROWS == 50) | (_COLUMNS == 20), 0x1000),
    "lines over a bit that is set everywhere": lambda image: _where(_LINES & (_COLUMNS < 40), 0x2000)(image | 0x4000),
    "specks": _where(np.random.default_rng(1).random((96, 80)) < 0.01, 0xF000),
    "an area": _where(_AREA, 0x8000),
    "an area in the next bit": _where(_AREA, 0x1000),
}


@SYNTAXES
@IMAGES
@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_bits_that_have_nothing_to_do_with_the_values_are_left_out(
    write: Write, change: Callable[[Pixels], Pixels], image: Pixels, syntax: uid.UID
) -> None:
    mammogram = read_view(_stored(write, change(image), syntax))
    np.testing.assert_array_equal(mammogram.pixels, image)
    assert [notice.code for notice in mammogram.notices] == ["bits-above-stored"]


@SYNTAXES
@IMAGES
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_swapped_bytes_are_refused_by_their_name(
    write: Write, image: Pixels, syntax: uid.UID, photometric: str
) -> None:
    stored = image if photometric == "MONOCHROME2" else 4095 - image
    values = {"PhotometricInterpretation": photometric}
    values |= {"PresentationLUTShape": "INVERSE"} if photometric == "MONOCHROME1" else {}
    with pytest.raises(DicomError, match=r"bytes of each pixel are swapped \(\d+ pixels .* 0 after a byte swap"):
        read_view(_stored(write, stored.byteswap(), syntax, **values))


@pytest.mark.parametrize("bits", [14, 16])
def test_swapped_bytes_show_where_all_bits_are_stored(write: Write, bits: int) -> None:
    image, values = tissue(bits=bits), {"BitsStored": 16, "HighBit": 15}
    np.testing.assert_array_equal(read_view(_stored(write, image, **values)).pixels, image)
    with pytest.raises(DicomError, match=r"swapped \(neighbouring pixels differ \d+ times less"):
        read_view(_stored(write, image.byteswap(), **values))


def test_a_wrong_byte_order_of_the_transfer_syntax(write: Write) -> None:
    path = write(syntax=uid.ExplicitVRBigEndian)
    dataset = dcmread(write(syntax=uid.ExplicitVRBigEndian))
    little = np.frombuffer(dataset.PixelData, ">u2").astype("<u2").tobytes()
    path.write_bytes(path.read_bytes().replace(dataset.PixelData, little))
    with pytest.raises(DicomError, match="swapped"):
        read_view(path)


SMOOTH = np.clip((1 - np.hypot(_ROWS - 48, _COLUMNS) / 60) * 3500, 0, 4095).astype(np.uint16)
"""An image whose lower byte is smooth too, but for its steps: noise above makes an exchange of bytes smoother."""


@SYNTAXES
@pytest.mark.parametrize("image", [TISSUE, SMOOTH], ids=["tissue", "smooth"])
@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("everywhere", [True, False], ids=["everywhere", "in the breast"])
def test_noise_in_the_bits_above_is_not_called_swapped_bytes(
    write: Write, image: Pixels, bits: int, everywhere: bool, syntax: uid.UID
) -> None:
    noise = np.random.default_rng(0).integers(0, 1 << bits, image.shape).astype(np.uint16) << 12
    stored = image | (noise if everywhere else np.where(image > 0, noise, 0))
    with pytest.raises(
        DicomError, match=r"bits above BitsStored hold noise, or BitsStored is too small: .*set these bits to 0"
    ):
        read_view(_stored(write, stored, syntax))


@SYNTAXES
@IMAGES
@pytest.mark.parametrize("stated", [8, 9, 10, 11])
def test_a_bits_stored_that_is_too_small_is_refused(write: Write, image: Pixels, stated: int, syntax: uid.UID) -> None:
    with pytest.raises(DicomError, match=rf"BitsStored is too small: .*above BitsStored {stated}.* needs 12 bits"):
        read_view(_stored(write, image, syntax, BitsStored=stated, HighBit=stated - 1))


def test_few_values_just_above_the_stated_range_are_values(write: Write) -> None:
    """A peak of which some pixels need a 13th bit."""
    image = TISSUE.astype(int) + 150
    share = np.mean(image > 4095)
    assert 0 < share < 0.05
    with pytest.raises(DicomError, match=r"continue the values of their neighbours: 100 %.*needs 13 bits"):
        read_view(_stored(write, image))


@pytest.mark.parametrize("value", [4096, 4200, 4600, 5000, 7000])
@pytest.mark.parametrize("shape", ["a clip", "calcifications", "a lesion"])
def test_bright_structures_with_sharp_edges_are_values(write: Write, shape: str, value: int) -> None:
    """They need a 13th bit; less 4096 they would be dark holes in the tissue, and no wrapped step shows it."""
    row, column = np.mgrid[: TISSUE.shape[0], : TISSUE.shape[1]]
    where = {
        "a clip": (row > 40) & (row < 46) & (column > 10) & (column < 22),
        "calcifications": (row % 12 == 0) & (column % 9 == 4) & (TISSUE > 1000),
        "a lesion": (row - 48) ** 2 + (column - 20) ** 2 < 100,
    }[shape]
    image = np.where(where & (TISSUE > 0), value + TISSUE % (1 if value == 4096 else 16), TISSUE)
    assert (image > 4095).any()
    with pytest.raises(DicomError, match="BitsStored is too small"):
        read_view(_stored(write, image))
    np.testing.assert_array_equal(read_view(_stored(write, image, BitsStored=13, HighBit=12)).pixels, image)


@IMAGES
def test_left_justified_values_are_refused(write: Write, image: Pixels) -> None:
    with pytest.raises(DicomError, match="BitsStored is too small"):
        read_view(_stored(write, image << 4))


@SYNTAXES
@IMAGES
@pytest.mark.parametrize("value", [0xFFFF, 0x8000, 0x4321])
def test_padding_beyond_the_stored_bits(write: Write, image: Pixels, value: int, syntax: uid.UID) -> None:
    stored = np.where(image == 0, value, image)
    mammogram = read_view(_stored(write, stored, syntax, PixelPaddingValue=value))
    np.testing.assert_array_equal(mammogram.pixels, image)
    assert mammogram.notices == ()
    if value & 0xFFF:
        with pytest.raises(DicomError, match=f"the value {value}: this is padding .*PixelPaddingValue {value}"):
            read_view(_stored(write, stored, syntax))
    else:  # what is left of it is the background
        np.testing.assert_array_equal(read_view(_stored(write, stored, syntax)).pixels, image)


def test_padding_does_not_hide_values_that_do_not_fit(write: Write) -> None:
    stored = np.where(TISSUE == 0, 0xFFFF, TISSUE)
    with pytest.raises(DicomError, match="needs 12 bits"):
        read_view(_stored(write, stored, PixelPaddingValue=0xFFFF, BitsStored=10, HighBit=9))


def test_padding_beside_inverted_values(write: Write) -> None:
    stored = np.where(TISSUE == 0, 0xF000, 4095 - TISSUE)
    values = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    np.testing.assert_array_equal(read_view(_stored(write, stored, PixelPaddingValue=0xF000, **values)).pixels, TISSUE)
    with pytest.raises(DicomError, match="PixelPaddingValue 61440"):
        read_view(_stored(write, stored, **values))


def test_signed_pixels(write: Write) -> None:
    image, values = TISSUE // 2, {"PixelRepresentation": 1}
    with pytest.raises(DicomError, match="swapped"):
        read_view(_stored(write, image.byteswap(), **values))
    with pytest.raises(DicomError, match="BitsStored is too small"):
        read_view(_stored(write, TISSUE, BitsStored=10, HighBit=9, **values))
    mammogram = read_view(_stored(write, _where(_LINES & (_COLUMNS < 40), 0x4000)(image), **values))
    np.testing.assert_array_equal(mammogram.pixels, image)
    assert [notice.code for notice in mammogram.notices] == ["bits-above-stored"]


def test_negative_padding_of_signed_pixels(write: Write) -> None:
    image = TISSUE // 2
    stored = np.where(image == 0, -2000, image).astype("<i2").view("<u2")
    with pytest.raises(DicomError, match="smallest pixel is -2000"):
        read_view(_stored(write, stored, PixelRepresentation=1))
    path = _stored(write, stored, PixelRepresentation=1)
    dataset = dcmread(path)
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.save_as(path)
    np.testing.assert_array_equal(read_view(path).pixels, image)


def test_padding_of_the_wrong_value_representation(write: Write) -> None:
    path = _stored(write, np.where(TISSUE == 0, 0xFFFF, TISSUE))
    dataset = dcmread(path)
    dataset.add_new("PixelPaddingValue", "SS", -1)
    dataset.save_as(path)
    np.testing.assert_array_equal(read_view(path).pixels, TISSUE)


def test_bytes_behind_the_pixels_are_told_as_such(write: Write) -> None:
    path = _stored(write, TISSUE)
    dataset = dcmread(path)
    dataset.PixelData += bytes(2)
    dataset.save_as(path)
    with pytest.raises(
        DicomError, match="longer than the header states: it has 15362 bytes, expected 15360 for 96 rows"
    ):
        read_view(path)
    dataset.PixelData = dataset.PixelData[:-4]
    dataset.save_as(path)
    with pytest.raises(DicomError, match="damaged or incomplete: it has 15358 bytes, expected 15360"):
        read_view(path)

"""JPEG Lossless from several encoders, whole and damaged; and what T.81 allows beside the common form."""

import imagecodecs
import numpy as np
import pytest
from support.lock import MANY, turns_during
from support.streams import jpeg_lossless_stream, tissue

from glam_deploy.dicom.transfer_syntaxes.jpeg_lossless import decode
from glam_deploy.dicom.transfer_syntaxes.segments import StreamError
from glam_deploy.records import Pixels

SOUND = tissue()
STREAM = jpeg_lossless_stream(SOUND, 12)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
def test_every_predictor_gives_back_every_bit(bits: int, predictor: int) -> None:
    pixels = np.random.default_rng(bits).integers(0, 1 << bits, (41, 33)).astype(np.uint8 if bits == 8 else np.uint16)
    stream = jpeg_lossless_stream(pixels, bits, predictor=predictor)
    np.testing.assert_array_equal(decode(stream, pixels.shape), pixels, strict=True)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_another_encoder(bits: int) -> None:
    """liblj92, which pads the last byte with zeros."""
    pixels = tissue(bits=bits)
    stream = bytes(imagecodecs.ljpeg_encode(pixels, bitspersample=bits))
    np.testing.assert_array_equal(decode(stream, pixels.shape), pixels)


def _interval(samples: Pixels, bits: int) -> bytes:
    """A restart interval with predictor 1 and codes of 5 bits, the category itself, by T.81 H.1.2 word for word."""
    text = ""
    for (row, column), sample in np.ndenumerate(samples.astype(int)):
        before = samples[row, column - 1] if column else samples[row - 1, 0] if row else 1 << (bits - 1)
        difference = int(sample) - int(before)
        size = abs(difference).bit_length()
        text += f"{size:05b}" + (f"{difference - (difference < 0) & (1 << size) - 1:0{size}b}" if size else "")
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8).replace(b"\xff", b"\xff\0")


def _with_restarts(samples: Pixels, bits: int, rows: int, *, first: int = 0) -> bytes:
    height, width = samples.shape
    tables = b"\xff\xc4\0\x24\0" + bytes([0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))
    restarts = b"\xff\xdd\0\4" + (rows * width).to_bytes(2)
    frame = b"\xff\xc3\0\x0b" + bytes([bits]) + height.to_bytes(2) + width.to_bytes(2) + b"\1\1\x11\0"
    parts = [_interval(samples[top : top + rows], bits) for top in range(0, height, rows)]
    data = b"".join(part + bytes([0xFF, 0xD0 + (first + i) % 8]) for i, part in enumerate(parts))[:-2]
    return b"\xff\xd8" + tables + restarts + frame + b"\xff\xda\0\x08\1\1\0\1\0\0" + data + b"\xff\xd9"


@pytest.mark.parametrize("rows", [1, 5, 8, 40])
def test_restart_intervals(rows: int) -> None:
    pixels = tissue((40, 16))
    np.testing.assert_array_equal(decode(_with_restarts(pixels, 12, rows), pixels.shape), pixels)


def test_restart_intervals_out_of_turn_or_of_no_whole_rows_are_refused() -> None:
    pixels = tissue((40, 16))
    with pytest.raises(StreamError, match="interrupted by the marker FF D1"):
        decode(_with_restarts(pixels, 12, 8, first=1), pixels.shape)
    sound = _with_restarts(pixels, 12, 8)
    with pytest.raises(StreamError, match="130 samples, expected a multiple of 16"):
        decode(sound.replace(b"\xff\xdd\0\4\0\x80", b"\xff\xdd\0\4\0\x82"), pixels.shape)
    place = sound.index(b"\xff\xd1")
    with pytest.raises(StreamError, match="interrupted by the marker FF D2"):
        decode(sound[:place] + sound[sound.index(b"\xff\xd2") :], pixels.shape)


@pytest.mark.parametrize("fill", [1, 2, 7])
def test_fill_bytes_before_any_marker(fill: int) -> None:
    """T.81 B.1.1.2; DCMTK puts one before EOI where a frame would have an odd number of bytes."""
    stream = STREAM[:-2] + b"\xff" * fill + b"\xff\xd9"
    np.testing.assert_array_equal(decode(stream, SOUND.shape), SOUND)
    for marker in (b"\xff\xc3", b"\xff\xc4", b"\xff\xda"):
        stream = stream.replace(marker, b"\xff" * fill + marker, 1)
    np.testing.assert_array_equal(decode(stream, SOUND.shape), SOUND)
    np.testing.assert_array_equal(decode(b"\xff" * fill + stream + b"\0", SOUND.shape), SOUND)


def test_comments_and_application_data_are_passed_over() -> None:
    more = b"\xff\xe1\x00\x06Exif\xff\xfe\x00\x04\xff\xd9\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\2"
    np.testing.assert_array_equal(decode(STREAM[:2] + more + STREAM[2:], SOUND.shape), SOUND)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"", "a marker is missing at byte 0"),
        (STREAM[2:], "does not begin with SOI"),
        (STREAM[:-2], "without EOI"),
        (STREAM[: len(STREAM) // 2], "without EOI"),
        (STREAM[: len(STREAM) // 2] + b"\xff\xd9", "before the last pixel"),
        (STREAM[:-8] + b"\xff\xd9", "before the last pixel"),
        (STREAM[:-2] + b"\x55\xff\xd9", "bits after the last pixel"),
        (STREAM[:-2] + b"\x55\x55\x55\x55\xff\xd9", "bits after the last pixel"),
        (STREAM + b"\x01", "data other than padding follow"),
        (STREAM + STREAM, "data other than padding follow"),
        (STREAM[:-2] + b"\xff\xd0\xff\xd9", "interrupted by the marker FF D0"),
        (STREAM[:-2] + STREAM[STREAM.index(b"\xff\xda") :], "interrupted by the marker FF DA"),
        (STREAM.replace(b"\xff\xc3\x00\x0b\x0c\x00\x60", b"\xff\xc3\x00\x0b\x0c\x00\x5f"), "95 rows"),
        (STREAM.replace(b"\xff\xc3\x00\x0b\x0c", b"\xff\xc3\x00\x0b\x11"), "17 bits"),
        (STREAM.replace(b"\xff\xc3", b"\xff\xc1"), "FF C1"),
        (
            STREAM.replace(b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00", b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x02"),
            "2 bits",
        ),
        (STREAM.replace(b"\xff\xda\x00\x08\x01\x01\x00\x01", b"\xff\xda\x00\x08\x01\x01\x00\x09"), "lossless scan"),
        (STREAM.replace(b"\xff\xda\x00\x08\x01\x01\x00", b"\xff\xda\x00\x08\x01\x01\x10"), "table 1 is missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_one_sound_image_is_refused_with_its_reason(stream: bytes, words: str) -> None:
    with pytest.raises(StreamError, match=words):
        decode(stream, SOUND.shape)


def test_pixels_beyond_the_precision_are_refused() -> None:
    """Eight bits that overflow come out of libjpeg-turbo as other eight bits."""
    pixels = tissue(bits=8).astype(np.uint16)
    pixels[40, 20:24] += 128
    wide = jpeg_lossless_stream(pixels, 16)
    narrow = wide.replace(b"\xff\xc3\x00\x0b\x10", b"\xff\xc3\x00\x0b\x08")
    with pytest.raises(StreamError):
        decode(narrow, pixels.shape)


def test_python_goes_on_meanwhile() -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (3000, 2000)).astype(np.uint16)
    stream = jpeg_lossless_stream(pixels, 12)
    assert turns_during(lambda: decode(stream, pixels.shape)) > MANY

"""The decoder of JPEG 2000, beside pylibjpeg's, which is another build of the same library; HTJ2K is OpenJPH's."""

import logging
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from openjpeg import utils as openjpeg
from support.lock import MANY, turns_during
from support.streams import changed, htj2k_stream, jpeg_2000_stream, other_pixels, tissue

from glam_deploy.dicom.transfer_syntaxes.jpeg2000 import decode
from glam_deploy.dicom.transfer_syntaxes.segments import StreamError
from glam_deploy.errors import BackendUnavailable


def noise(bits: int, shape: tuple[int, int] = (512, 384)) -> np.ndarray:
    return np.random.default_rng(bits).integers(0, 1 << bits, shape).astype(np.uint8 if bits == 8 else np.uint16)


def decoded(stream: bytes, shape: tuple[int, int] = (512, 384)) -> np.ndarray:
    return decode(stream, shape).pixels


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
def test_lossless_gives_back_every_bit(bits: int) -> None:
    np.testing.assert_array_equal(decoded(jpeg_2000_stream(noise(bits), bits)), noise(bits))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_high_throughput_gives_back_every_bit(bits: int) -> None:
    np.testing.assert_array_equal(decoded(htj2k_stream(noise(bits), bits)), noise(bits))


@pytest.mark.parametrize("ratio", [20, 50])
def test_lossy_is_as_pylibjpeg_has_it(ratio: int) -> None:
    stream = jpeg_2000_stream(np.sort(noise(12)), 12, signal_noise_ratios=[ratio])
    np.testing.assert_array_equal(decoded(stream), openjpeg.decode(stream))
    assert (decoded(stream) != np.sort(noise(12))).any()


@pytest.mark.parametrize("lost", [1, 2, 50, 10_000])
def test_a_stream_that_ends_early_is_refused_without_a_word(lost: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StreamError, match="EOC"):
        decoded(jpeg_2000_stream(noise(12), 12)[:-lost])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "stream", [b"", b"\xff\x4f\xff", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", jpeg_2000_stream(noise(12), 12)[4:]]
)
def test_another_kind_of_stream_is_refused(stream: bytes) -> None:
    with pytest.raises(StreamError, match="not begin as a JPEG 2000 codestream"):
        decoded(stream)


def test_damage_within_a_code_block_is_found_by_its_length(capfd: pytest.CaptureFixture[str]) -> None:
    stream = bytearray(jpeg_2000_stream(noise(12), 12))
    stream[len(stream) // 2 : len(stream) // 2 + 500] = b"\x55" * 500
    assert openjpeg.decode(bytes(stream)).shape == (512, 384)  # the same library without the check
    with pytest.raises(StreamError, match=r"\d of its code-blocks have more or fewer bytes"):
        decoded(bytes(stream))
    assert capfd.readouterr() == ("", "")


def test_most_changed_bytes_are_found() -> None:
    pixels = tissue((256, 200))
    assert other_pixels("jpeg-2000", changed(jpeg_2000_stream(pixels, 12), 40), pixels) <= 8  # all 40 without the check


def test_signed_pixels_come_as_they_are() -> None:
    pixels = (noise(12) - 2048).astype(np.int16)
    found = decoded(jpeg_2000_stream(pixels, 12))
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, pixels)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _file(codestream: bytes, *, more: bytes = b"") -> bytes:
    header = _box(b"ihdr", struct.pack(">IIHBBBB", 512, 384, 1, 11, 7, 0, 0)) + more
    brand = _box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return _box(b"jP  ", b"\r\n\x87\n") + brand + _box(b"jp2h", header) + _box(b"jp2c", codestream)


def test_the_codestream_of_a_file_is_read_and_told() -> None:
    codestream = jpeg_2000_stream(noise(12), 12)
    found = decode(_file(codestream), (512, 384))
    assert found.in_file
    np.testing.assert_array_equal(found.pixels, noise(12))
    assert not decode(codestream, (512, 384)).in_file


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (_file(b"")[:-8], "without a codestream"),
        (_file(b"", more=_box(b"pclr", b"")), "palette"),
        (_file(jpeg_2000_stream(noise(12), 12))[:-50], "box"),
    ],
)
def test_a_file_without_its_codestream_is_refused(stream: bytes, words: str) -> None:
    with pytest.raises(StreamError, match=words):
        decoded(stream)


def _patched(at: int, layout: str, *values: int) -> bytes:
    stream = bytearray(jpeg_2000_stream(noise(12), 12))
    struct.pack_into(layout, stream, at, *values)
    return bytes(stream)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (_patched(8, ">II", 60_000, 60_000), "60000 rows and 60000 columns"),
        (_patched(24, ">II", 1, 1), "196608 tiles"),
        (_patched(24, ">II", 0, 0), "tiles without size"),
        (_patched(24, ">II", 8, 8), "1 tiles, its header states 3072"),
        (_patched(40, ">H", 16384), "16384 components"),
        (_patched(42, ">B", 31), "32 bits"),
    ],
)
def test_a_header_that_asks_for_much_is_refused_unread(stream: bytes, words: str) -> None:
    with pytest.raises(StreamError, match=words):
        decoded(stream)


@pytest.fixture
def no_logging() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_without_logging_nothing_is_read_unchecked(no_logging: None) -> None:
    with pytest.raises(BackendUnavailable, match=r"logging\.disable"):
        decoded(jpeg_2000_stream(noise(12), 12))


def test_a_logger_that_was_switched_off_still_tells() -> None:
    logging.getLogger("imagecodecs").disabled = True
    np.testing.assert_array_equal(decoded(jpeg_2000_stream(noise(12), 12)), noise(12))


def test_python_goes_on_meanwhile() -> None:
    stream = jpeg_2000_stream(noise(16, (1024, 1024)), 16)
    assert turns_during(lambda: decode(stream, (1024, 1024))) > MANY

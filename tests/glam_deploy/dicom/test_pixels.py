"""What surrounds the decoders: fragments, offset tables, signs, sizes; and damage told with its reason."""

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mammograms import breast
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from support.lock import MANY, turns_during
from support.streams import (
    htj2k_stream,
    jpeg_2000_stream,
    jpeg_lossless_stream,
    jpeg_ls_stream,
    rle_stream,
    tissue,
)

from glam_deploy.dicom.read import read_view
from glam_deploy.dicom.transfer_syntaxes import jpeg_ls, rle
from glam_deploy.dicom.transfer_syntaxes.segments import StreamError
from glam_deploy.errors import DicomError
from glam_deploy.records import View

Write = Callable[..., Path]
PIXELS = breast(View.L_CC)
ENCODE = {
    uid.RLELossless: rle_stream,
    uid.JPEGLosslessSV1: jpeg_lossless_stream,
    uid.JPEGLossless: partial(jpeg_lossless_stream, predictor=7),
    uid.JPEGLSLossless: jpeg_ls_stream,
    uid.JPEG2000Lossless: jpeg_2000_stream,
    uid.HTJ2KLossless: htj2k_stream,
    uid.HTJ2KLosslessRPCL: htj2k_stream,
}
STREAMS = {syntax: encode(PIXELS, 12) for syntax, encode in ENCODE.items()}
ALL = pytest.mark.parametrize("syntax", STREAMS, ids=lambda syntax: syntax.keyword)


def _encapsulated(write: Write, syntax: uid.UID, value: bytes, **values: object) -> Path:
    def edit(dataset: Dataset) -> None:
        for keyword, item in values.items():
            setattr(dataset, keyword, item)

    path = write(edit)
    dataset = dcmread(path)
    dataset.PixelData = value
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    return path


def _item(content: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


@ALL
@pytest.mark.parametrize("fragments", [1, 2, 5])
@pytest.mark.parametrize("table", [True, False], ids=["offset table", "empty offset table"])
def test_fragments_are_joined(write: Write, syntax: uid.UID, fragments: int, table: bool) -> None:
    value = encapsulate([STREAMS[syntax]], fragments_per_frame=fragments, has_bot=table)
    np.testing.assert_array_equal(read_view(_encapsulated(write, syntax, value)).pixels, PIXELS)


@ALL
def test_a_missing_fragment_is_refused(write: Write, syntax: uid.UID) -> None:
    stream = STREAMS[syntax]
    thirds = [stream[i : i + len(stream) // 6 * 2] for i in range(0, len(stream), len(stream) // 6 * 2)]
    with pytest.raises(DicomError, match=r"damaged or incomplete: |data other than fragments"):
        read_view(_encapsulated(write, syntax, _item(b"") + b"".join(map(_item, (thirds[0], *thirds[2:])))))


@ALL
def test_two_images_in_one_object_are_refused(write: Write, syntax: uid.UID) -> None:
    with pytest.raises(DicomError, match="damaged or incomplete: "):
        read_view(_encapsulated(write, syntax, encapsulate([STREAMS[syntax]] * 2)))
    with pytest.raises(DicomError, match="damaged or incomplete: "):
        read_view(_encapsulated(write, syntax, encapsulate([STREAMS[syntax] * 2])))


@ALL
@pytest.mark.parametrize(("rows", "columns"), [(48, 70), (96, 35), (97, 70)])
def test_another_size_in_the_header_is_refused(write: Write, syntax: uid.UID, rows: int, columns: int) -> None:
    with pytest.raises(DicomError, match="damaged or incomplete: "):
        read_view(_encapsulated(write, syntax, encapsulate([STREAMS[syntax]]), Rows=rows, Columns=columns))


@pytest.mark.parametrize(("rows", "columns"), [(48, 70), (96, 35), (97, 70)])
def test_uncompressed_pixels_of_another_number_are_refused(write: Write, rows: int, columns: int) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.Rows, dataset.Columns = rows, columns

    with pytest.raises(DicomError, match=f"13440 bytes, expected {2 * rows * columns} for {rows} rows"):
        read_view(write(edit))


def test_an_odd_number_of_bytes_is_padded(write: Write) -> None:
    pixels = breast(View.L_CC, bits=8)[:95, :69]

    def edit(dataset: Dataset) -> None:
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = pixels.tobytes() + b"\0"

    np.testing.assert_array_equal(read_view(write(edit, bits=8)).pixels, pixels)


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless], ids=lambda s: s.keyword)
def test_the_header_says_that_pixels_are_signed(write: Write, syntax: uid.UID) -> None:
    value = encapsulate([STREAMS[syntax]])
    with pytest.raises(DicomError, match="smallest pixel is -"):
        read_view(_encapsulated(write, syntax, value, PixelRepresentation=1))
    encode = {
        uid.RLELossless: rle_stream,
        uid.JPEGLosslessSV1: jpeg_lossless_stream,
        uid.JPEGLSLossless: jpeg_ls_stream,
    }
    value = encapsulate([encode[syntax](PIXELS // 2, 12)])
    found = read_view(_encapsulated(write, syntax, value, PixelRepresentation=1))
    np.testing.assert_array_equal(found.pixels, PIXELS // 2)
    assert found.notices == ()


@pytest.mark.parametrize(
    ("in_stream", "in_header", "codes"),
    [(True, 1, ["signed-pixels"]), (True, 0, ["sign-differs"]), (False, 1, ["sign-differs"])],
)
def test_signs_of_jpeg_2000_are_told(write: Write, in_stream: bool, in_header: int, codes: list[str]) -> None:
    pixels = PIXELS // 2
    stream = jpeg_2000_stream(pixels.astype(np.int16) if in_stream else pixels, 12)
    path = _encapsulated(write, uid.JPEG2000Lossless, encapsulate([stream]), PixelRepresentation=in_header)
    found = read_view(path)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert [notice.code for notice in found.notices] == codes


def test_negative_pixels_of_jpeg_2000_are_refused(write: Write) -> None:
    stream = jpeg_2000_stream(PIXELS.astype(np.int16) - 2000, 13)
    with pytest.raises(DicomError, match="smallest pixel is -2000"):
        read_view(_encapsulated(write, uid.JPEG2000Lossless, encapsulate([stream]), PixelRepresentation=1))


def test_lossy_high_throughput_jpeg_2000_is_told(write: Write) -> None:
    path = _encapsulated(write, uid.HTJ2K, encapsulate([STREAMS[uid.HTJ2KLossless]]))
    dataset = dcmread(path)
    del dataset.LossyImageCompression
    dataset.save_as(path)
    assert [notice.code for notice in read_view(path).notices] == ["lossy"]


def test_rle_keeps_what_lies_above_bits_stored_out(write: Write) -> None:
    value = encapsulate([rle_stream(PIXELS | 0x8000, 16)])
    np.testing.assert_array_equal(read_view(_encapsulated(write, uid.RLELossless, value)).pixels, PIXELS)


def _rle(*segments: bytes) -> bytes:
    offsets = np.cumsum([64, *map(len, segments)])[:-1].tolist()
    return struct.pack("<16L", len(segments), *offsets, *[0] * (15 - len(segments))) + b"".join(segments)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"", "0 bytes"),
        (_rle(b"\x03abcd"), "1 segments, expected 2"),
        (_rle(b"\x03abcd", b"\x02abc"), "does not contain exactly the 4 bytes"),
        (_rle(b"\x03abcd", b"\x04abcde"), "does not contain exactly the 4 bytes"),
        (_rle(b"\x03abcd", b"\x03abc"), "does not contain exactly the 4 bytes"),
        (_rle(b"\x03abcd\0\0", b"\x03abcd"), "does not contain exactly the 4 bytes"),
        (_rle(b"\x03abcd", b"\x03abcd").replace(b"\x45", b"\x40", 1), "not ascending"),
    ],
)
def test_rle_that_is_not_the_image_is_refused(stream: bytes, words: str) -> None:
    with pytest.raises(StreamError, match=words):
        rle.decode(stream, (2, 2), 16)


def test_rle_by_hand() -> None:
    """PS3.5 G.3: the most significant bytes first; a run, a literal, a byte that means nothing, padding."""
    stream = _rle(b"\xff\x01\x80\x01\x02\x03\0", b"\x03abcd\0")
    np.testing.assert_array_equal(rle.decode(stream, (2, 2), 16), [[0x161, 0x162], [0x263, 0x364]])


@pytest.mark.parametrize("near", [0, 2])
def test_jpeg_ls_ends_where_its_data_do(near: int) -> None:
    import jpeg_ls as encoder

    for seed in range(12):
        pixels = tissue((31 + seed, 40), seed=seed)
        stream = bytes(encoder.encode_buffer(pixels.tobytes(), *pixels.shape, 1, 12, near, 0))
        assert np.abs(jpeg_ls.decode(stream, pixels.shape).astype(int) - pixels).max() <= near
        for lost in range(1, 8):
            with pytest.raises(StreamError):
                jpeg_ls.decode(stream[: -2 - lost].removesuffix(b"\xff") + b"\xff\xd9", pixels.shape)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s[:-2], "without EOI"),
        (lambda s: s[: len(s) // 2], "without EOI"),
        (lambda s: s + b"\1", "data other than padding follow"),
        (lambda s: s[:200] + b"\xff\xd9" + s[200:], "data other than padding follow"),
        (lambda s: s[:200] + b"\xff\xd0" + s[200:], "interrupted by the marker FF D0"),
        (lambda s: s.replace(b"\xff\xf7\0\x0b\x0c\0\x60", b"\xff\xf7\0\x0b\x0c\0\x61"), "97 rows"),
        (lambda s: s.replace(b"\xff\xf7", b"\xff\xc3"), "0 marker segments SOF55"),
    ],
)
def test_jpeg_ls_that_is_not_one_image_is_refused_at_once(change: Callable[[bytes], bytes], words: str) -> None:
    with pytest.raises(StreamError, match=words):
        jpeg_ls.decode(change(STREAMS[uid.JPEGLSLossless]), PIXELS.shape)


def test_jpeg_ls_with_fill_bytes() -> None:
    """As DCMTK writes where a frame would have an odd number of bytes."""
    stream = STREAMS[uid.JPEGLSLossless][:-2] + b"\xff\xff\xff\xd9\0"
    np.testing.assert_array_equal(jpeg_ls.decode(stream, PIXELS.shape), PIXELS)


def test_python_goes_on_while_jpeg_ls_is_decoded() -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (2500, 2000)).astype(np.uint16)
    stream = jpeg_ls_stream(pixels, 12)
    assert turns_during(lambda: jpeg_ls.decode(stream, pixels.shape)) > MANY

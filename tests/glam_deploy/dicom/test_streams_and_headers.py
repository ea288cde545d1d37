"""Streams that say other things than the DICOM header: their precision, their loss; and streams made of trifles."""

import struct
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import jpeg_ls
import numpy as np
import pytest
from openjpeg import utils as openjpeg
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from support.streams import htj2k_stream, jpeg_2000_stream, jpeg_lossless_stream, jpeg_ls_stream, tissue

from glam_deploy.dicom.read import read_view
from glam_deploy.dicom.transfer_syntaxes import codestream, jpeg_lossless
from glam_deploy.dicom.transfer_syntaxes import jpeg_ls as reader_of_jpeg_ls
from glam_deploy.dicom.transfer_syntaxes.segments import MAX_SEGMENTS, StreamError
from glam_deploy.errors import DicomError
from glam_deploy.records import Mammogram, Pixels

Write = Callable[..., Path]
TISSUE = tissue()
DARK = (TISSUE * 0.9).astype(np.uint16)
"""With room above for the error of a lossy encoder that states 16 bits."""
ENCODE: dict[uid.UID, Callable[[Pixels, int], bytes]] = {
    uid.JPEGLosslessSV1: jpeg_lossless_stream,
    uid.JPEGLSLossless: jpeg_ls_stream,
    uid.JPEG2000Lossless: jpeg_2000_stream,
}
ALL = pytest.mark.parametrize("syntax", ENCODE, ids=lambda syntax: syntax.keyword)


def _read(write: Write, syntax: uid.UID, stream: bytes, value: bytes = b"", **values: object) -> Mammogram:
    """What is read of a header of 12 bits, unless `values` say otherwise, and that stream (or encapsulated value)."""

    def edit(dataset: Dataset) -> None:
        dataset.Rows, dataset.Columns = TISSUE.shape
        for keyword, item in values.items():
            setattr(dataset, keyword, item)

    path = write(edit)
    dataset = dcmread(path)
    dataset.PixelData = value or encapsulate([stream + bytes(len(stream) % 2)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    return read_view(path)


def _codes(mammogram: Mammogram) -> list[str]:
    return [notice.code for notice in mammogram.notices]


@ALL
def test_more_bits_in_the_stream_that_no_pixel_uses(write: Write, syntax: uid.UID) -> None:
    mammogram = _read(write, syntax, ENCODE[syntax](TISSUE, 16))
    np.testing.assert_array_equal(mammogram.pixels, TISSUE)
    assert mammogram.notices == ()


@ALL
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_more_bits_in_the_stream_that_pixels_use(write: Write, syntax: uid.UID, photometric: str) -> None:
    values = {"PhotometricInterpretation": photometric, "PresentationLUTShape": ""}
    with pytest.raises(DicomError, match=r"pixel is 16\d+, expected up to 4095 .* stream states 14 bits per pixel"):
        _read(write, syntax, ENCODE[syntax](tissue(bits=14), 14), **values)


@ALL
def test_bits_above_in_a_stream_are_values(write: Write, syntax: uid.UID) -> None:
    with pytest.raises(DicomError, match="stream states 16 bits per pixel"):
        _read(write, syntax, ENCODE[syntax](TISSUE | 0x8000, 16))


@ALL
def test_swapped_bytes_in_a_stream(write: Write, syntax: uid.UID) -> None:
    with pytest.raises(DicomError, match="swapped"):
        _read(write, syntax, ENCODE[syntax](TISSUE.byteswap(), 16))
    with pytest.raises(DicomError, match="swapped"):
        _read(write, syntax, ENCODE[syntax](TISSUE.byteswap(), 16), BitsStored=16, HighBit=15)


@ALL
def test_padding_that_the_header_states(write: Write, syntax: uid.UID) -> None:
    stored = np.where(TISSUE == 0, 0xFFFF, TISSUE).astype(np.uint16)
    mammogram = _read(write, syntax, ENCODE[syntax](stored, 16), PixelPaddingValue=0xFFFF)
    np.testing.assert_array_equal(mammogram.pixels, TISSUE)


@ALL
def test_fewer_bits_in_the_stream(write: Write, syntax: uid.UID) -> None:
    pixels = tissue(bits=10)
    mammogram = _read(write, syntax, ENCODE[syntax](pixels, 10))
    np.testing.assert_array_equal(mammogram.pixels, pixels)
    (notice,) = mammogram.notices
    assert notice.code == "precision-differs"
    assert "states 10 bits per pixel, BitsStored is 12" in notice.message
    with pytest.raises(DicomError, match=r"10 bits per pixel, BitsStored is 12.*MONOCHROME1"):
        values = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
        _read(write, syntax, ENCODE[syntax](1023 - pixels, 10), **values)


def _near(pixels: Pixels) -> bytes:
    return bytes(jpeg_ls.encode_buffer(pixels.tobytes(), *pixels.shape, 1, 12, 3, 0))


def _irreversible(pixels: Pixels) -> bytes:
    return bytes(openjpeg.encode_array(pixels, bits_stored=12, signal_noise_ratios=[60]))


def _irreversible_by_imagecodecs(pixels: Pixels) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="J2K", level=60, reversible=False, bitspersample=12))


def _irreversible_htj2k(pixels: Pixels) -> bytes:
    return bytes(imagecodecs.htj2k_encode(pixels, reversible=False, level=0.0001))


LOSSY: list[tuple[uid.UID, Callable[[Pixels], bytes], str]] = [
    (uid.JPEGLSLossless, _near, "JPEG-LS with NEAR 3"),
    (uid.JPEG2000Lossless, _irreversible, "9-7 wavelet"),
    (uid.JPEG2000Lossless, _irreversible_by_imagecodecs, "9-7 wavelet"),
    (uid.HTJ2KLossless, _irreversible_htj2k, "9-7 wavelet"),
    (uid.HTJ2KLosslessRPCL, _irreversible_htj2k, "9-7 wavelet"),
]


@pytest.mark.parametrize(("syntax", "encode", "words"), LOSSY)
@pytest.mark.parametrize("tag", ["00", "01", ""])
def test_loss_under_a_lossless_transfer_syntax(
    write: Write, syntax: uid.UID, encode: Callable[[Pixels], bytes], words: str, tag: str
) -> None:
    mammogram = _read(write, syntax, encode(DARK), LossyImageCompression=tag)
    difference = np.abs(mammogram.pixels.astype(int) - DARK).max()
    assert 0 < difference < 100
    assert _codes(mammogram) == ["lossy"]
    message = mammogram.notices[0].message
    assert words in message
    assert f"contradicts the transfer syntax {syntax.name}" in message
    assert ("LossyImageCompression 00" in message) == (tag == "00")


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [(uid.JPEGLSNearLossless, _near), (uid.JPEG2000, _irreversible), (uid.HTJ2K, _irreversible_htj2k)],
)
def test_loss_that_the_tag_denies(write: Write, syntax: uid.UID, encode: Callable[[Pixels], bytes]) -> None:
    mammogram = _read(write, syntax, encode(DARK), LossyImageCompression="00")
    assert _codes(mammogram) == ["lossy"]
    assert "which contradicts LossyImageCompression 00" in mammogram.notices[0].message


@pytest.mark.parametrize("encode", [jpeg_2000_stream, htj2k_stream])
def test_reversible_streams_under_a_lossy_syntax(write: Write, encode: Callable[[Pixels, int], bytes]) -> None:
    syntax = uid.JPEG2000 if encode is jpeg_2000_stream else uid.HTJ2K
    assert _read(write, syntax, encode(TISSUE, 12), LossyImageCompression="00").notices == ()


def _after_start(stream: bytes, more: bytes) -> bytes:
    return stream[:2] + more + stream[2:]


_COM, _APP, _EMPTY_TABLES = b"\xff\xfe\0\2", b"\xff\xe5\0\2", b"\xff\xc4\0\2"
TRIFLES: dict[str, tuple[uid.UID, Callable[[Pixels], bytes], str]] = {
    "comments of JPEG Lossless": (
        uid.JPEGLosslessSV1,
        lambda p: _after_start(jpeg_lossless_stream(p, 12), _COM * 2_000_000),
        f"more than {MAX_SEGMENTS} marker segments",
    ),
    "application data of JPEG-LS": (
        uid.JPEGLSLossless,
        lambda p: _after_start(jpeg_ls_stream(p, 12), _APP * 2_000_000),
        f"more than {MAX_SEGMENTS} marker segments",
    ),
    "Huffman tables": (
        uid.JPEGLosslessSV1,
        lambda p: _after_start(
            jpeg_lossless_stream(p, 12),
            (b"\xff\xc4" + struct.pack(">H", 2 + 18 * 3000) + (b"\0\1" + bytes(16)) * 3000) * 100,
        ),
        "Huffman tables have more than 65536 bytes",
    ),
    "restart markers of JPEG-LS": (
        uid.JPEGLSLossless,
        lambda p: (
            _after_start(jpeg_ls_stream(p, 12)[:-2], b"\xff\xdd\0\4\0\1") + b"\0\xff\xd0" * 2_000_000 + b"\xff\xd9"
        ),
        "interrupted by the marker FF D0",
    ),
    "comments of JPEG 2000": (
        uid.JPEG2000Lossless,
        lambda p: (
            (s := jpeg_2000_stream(p, 12))[: s.index(b"\xff\x90")]
            + b"\xff\x64\0\2" * 2_000_000
            + s[s.index(b"\xff\x90") :]
        ),
        f"more than {MAX_SEGMENTS} marker segments",
    ),
    "tile-parts of JPEG 2000": (
        uid.JPEG2000Lossless,
        lambda p: (
            (s := jpeg_2000_stream(p, 12))[: s.index(b"\xff\x90")]
            + (b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 14, 0, 0) + b"\xff\x93") * 1_000_000
            + b"\xff\xd9"
        ),
        f"more than {codestream.MAX_TILE_PARTS} tile-parts",
    ),
    "boxes of a JP2 file": (
        uid.JPEG2000Lossless,
        lambda p: b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 8, b"free") * 2_000_000,
        f"more than {codestream.MAX_BOXES} boxes",
    ),
}


@pytest.mark.parametrize("case", TRIFLES)
def test_streams_of_trifles_are_refused_for_their_number(write: Write, case: str) -> None:
    syntax, make, words = TRIFLES[case]
    with pytest.raises(DicomError, match=words):
        _read(write, syntax, make(TISSUE))


def test_trifles_cost_no_object_each() -> None:
    """The walk ends at the limit, however long the stream is."""
    for decode, start in ((jpeg_lossless.decode, b"\xff\xd8"), (reader_of_jpeg_ls.decode, b"\xff\xd8")):
        with pytest.raises(StreamError, match="marker segments"):
            decode(start + _COM * (MAX_SEGMENTS + 1), (10, 10))


def test_a_sound_stream_may_have_comments(write: Write) -> None:
    stream = _after_start(jpeg_lossless_stream(TISSUE, 12), _COM * 1000 + _APP * 1000)
    np.testing.assert_array_equal(_read(write, uid.JPEGLosslessSV1, stream).pixels, TISSUE)


def _item(content: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


def test_an_offset_table_of_millions_is_not_unpacked(write: Write) -> None:
    value = _item(bytes(40_000_000)) + _item(jpeg_ls_stream(TISSUE, 12))
    with pytest.raises(DicomError, match="has 10000000 frames, expected one"):
        _read(write, uid.JPEGLSLossless, b"", value)


def test_empty_fragments_are_counted(write: Write) -> None:
    value = _item(b"") + _item(b"") * 1_000_000 + _item(jpeg_ls_stream(TISSUE, 12))
    with pytest.raises(DicomError, match="more than 20000 elements and items"):
        _read(write, uid.JPEGLSLossless, b"", value)

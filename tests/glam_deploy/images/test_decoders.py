"""What OpenCV would cut, make up or print: read whole, or refused with the reason, and nothing on the terminal."""

import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.streams import changed
from support.tiff import LONG, SHORT, opaque, samples_tiff
from support.tiff import tiff as tiff_of

from glam_deploy.errors import InputError
from glam_deploy.images import codec, tiff
from glam_deploy.images.image_files import read_image
from glam_deploy.images.structure import MAX_CHUNKS
from glam_deploy.records import Mammogram, Pixels, View

RNG = np.random.default_rng(3)
GREY16 = RNG.integers(0, 65536, (40, 30)).astype(np.uint16)
GREY8 = (GREY16 >> 8).astype(np.uint8)
SMOOTH = np.clip(np.add.outer(np.arange(64), np.arange(48)) * 2 + RNG.normal(0, 3, (64, 48)), 0, 255).astype(np.uint8)
ALPHA = (SHORT, [2])
GREYS = pytest.mark.parametrize("grey", [GREY8, GREY16], ids=["8 bits", "16 bits"])


def _read(tmp_path: Path, content: bytes) -> Mammogram:
    (tmp_path / "image").write_bytes(content)
    return read_image(tmp_path / "image", view=View.L_CC)


def _codes(mammogram: Mammogram) -> list[str]:
    return [notice.code for notice in mammogram.notices]


def _saved(pixels: Pixels, **options: object) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, **options)
    return stream.getvalue()


@GREYS
def test_grey_with_alpha_keeps_all_bits(tmp_path: Path, grey: Pixels) -> None:
    mammogram = _read(tmp_path, samples_tiff(opaque(grey), t338=ALPHA))
    np.testing.assert_array_equal(mammogram.pixels, grey, strict=True)
    assert _codes(mammogram) == ["alpha-dropped"]


@GREYS
def test_grey_with_alpha_that_is_not_opaque(tmp_path: Path, grey: Pixels) -> None:
    samples = opaque(grey)
    samples[3, 3, 1] -= 1
    with pytest.raises(InputError, match="transparent"):
        _read(tmp_path, samples_tiff(samples, t338=ALPHA))


@GREYS
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"t338": (SHORT, [0])}, "without stated meaning .ExtraSamples 0"),
        ({}, "2 samples per pixel, 0 of them extra"),
        ({"t338": ALPHA, "planar": True}, "PlanarConfiguration 2"),
        ({"t338": ALPHA, "t317": (SHORT, [2])}, "Predictor 2"),
    ],
)
def test_two_samples_that_cannot_be_read_as_they_are(
    tmp_path: Path, grey: Pixels, options: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        _read(tmp_path, samples_tiff(opaque(grey), **options))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@GREYS
def test_equal_channels(tmp_path: Path, grey: Pixels, planar: bool, alpha: bool) -> None:
    samples = np.dstack([grey] * 3 + [np.full_like(grey, np.iinfo(grey.dtype).max)] * alpha)
    content = samples_tiff(samples, planar=planar, **({"t338": ALPHA} if alpha else {}))
    if planar and grey.itemsize == 2:  # OpenCV would take planes for pixels
        with pytest.raises(InputError, match="PlanarConfiguration 2"):
            _read(tmp_path, content)
        return
    mammogram = _read(tmp_path, content)
    np.testing.assert_array_equal(mammogram.pixels, grey, strict=True)
    assert "rgb-grey" in _codes(mammogram)


def test_jpeg_in_a_tiff_is_read_as_pillow_reads_it_with_a_notice(tmp_path: Path) -> None:
    content = _saved(SMOOTH, format="TIFF", compression="jpeg")
    mammogram = _read(tmp_path, content)
    np.testing.assert_array_equal(mammogram.pixels, np.asarray(Image.open(BytesIO(content))))
    assert (mammogram.pixels != SMOOTH).any()
    assert _codes(mammogram) == ["lossy"]


@pytest.mark.parametrize(("compression", "name"), [("lzma", "LZMA"), ("zstd", "ZSTD")])
def test_a_compression_that_is_not_read_is_named(tmp_path: Path, compression: str, name: str) -> None:
    with pytest.raises(InputError, match=rf"Compression is \d+ \({name}\)"):
        _read(tmp_path, _saved(GREY8, format="TIFF", compression=compression))


def test_old_style_jpeg_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Compression is 6 \(old-style JPEG\)"):
        _read(tmp_path, samples_tiff(GREY8[..., None], t259=(SHORT, [6])))


def test_tags_of_others_are_passed_over_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = samples_tiff(GREY16[..., None], t65000=(SHORT, [5]), t270=(SHORT, [3]), t512=(SHORT, [1]))
    np.testing.assert_array_equal(_read(tmp_path, content).pixels, GREY16, strict=True)
    assert capfd.readouterr() == ("", "")


def test_samples_of_different_depths(tmp_path: Path) -> None:
    content = samples_tiff(np.dstack([GREY16] * 3), t258=(SHORT, [16, 8, 16]))
    with pytest.raises(InputError, match="equal in all samples"):
        _read(tmp_path, content)


DAMAGE = {
    ("tiff_lzw", "8 bits"): 0.95,
    ("tiff_lzw", "16 bits"): 0.95,
    ("packbits", "8 bits"): 1,
    ("tiff_deflate", "8 bits"): 0,
    ("tiff_deflate", "16 bits"): 0,
    ("jpeg", "8 bits"): 1,
    ("png", "8 bits"): 0,
    ("png", "16 bits"): 0,
}
"""Most of the changes of three bytes in the pixels that give another image."""


def _place(content: bytes) -> tuple[int, int]:
    """Where the pixels lie in a PNG, or in a TIFF of one strip."""
    with Image.open(BytesIO(content)) as image:
        if image.format == "PNG":
            return content.index(b"IDAT"), len(content) - 16
        return image.tag_v2[273][0], image.tag_v2[273][0] + image.tag_v2[279][0]


@pytest.mark.parametrize(("form", "bits"), DAMAGE)
def test_a_decoder_that_complains_is_believed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], form: str, bits: str
) -> None:
    grey = SMOOTH if bits == "8 bits" else SMOOTH.astype(np.uint16) * 200
    options = {"format": "PNG"} if form == "png" else {"format": "TIFF", "compression": form}
    content = _saved(grey, **options)
    sound, found = _read(tmp_path, content).pixels, 0
    start, end = _place(content)
    for damaged in changed(content[start:end], 100, length=3):
        try:
            found += (_read(tmp_path, content[:start] + damaged + content[end:]).pixels != sound).any()
        except InputError as error:
            assert re.search("(?i)damaged", str(error))
    assert found <= DAMAGE[form, bits] * 100
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("compression", "words"),
    [
        ("tiff_lzw", "LZWDecode|code not yet in table|Corrupted LZW"),
        ("packbits", "PackBitsDecode"),
        ("jpeg", "JPEGLib"),
    ],
)
def test_the_reason_of_the_decoder_is_in_the_message(tmp_path: Path, compression: str, words: str) -> None:
    """The pixels' last bytes are those of another image, in a file whose structure is sound."""
    content = bytearray(_saved(SMOOTH, format="TIFF", compression=compression))
    start, end = _place(bytes(content))
    middle = (start + end) // 2
    content[middle:end] = b"\x7f" * (end - middle)
    with pytest.raises(InputError, match=words):
        _read(tmp_path, bytes(content))


def test_messages_are_read_whatever_the_log_level_is(tmp_path: Path) -> None:
    content = bytearray(_saved(SMOOTH, format="TIFF", compression="packbits"))
    content[200:2000] = b"\x7f" * 1800
    (tmp_path / "a.tif").write_bytes(content)
    code = "import sys, glam_deploy as g\ntry: g.read(sys.argv[1], view='L-CC')\nexcept g.GlamError as e: print(e)"
    for level, closed in (("SILENT", ""), ("INFO", ""), ("SILENT", "2>&-")):
        ran = subprocess.run(
            ["/bin/sh", "-c", f'"$0" -c "$1" "$2" {closed}', sys.executable, code, tmp_path / "a.tif"],
            env={"OPENCV_LOG_LEVEL": level, "PATH": ""} | {"PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "PackBitsDecode" in ran.stdout
        assert ran.stderr == ""


def test_what_others_write_meanwhile_comes_out(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> Pixels:
        os.write(2, b"a line of somebody else\n[ERROR:0@1.0] global grfmt_tiff.cpp:117 TIFF_Error told\n")
        return GREY8

    monkeypatch.setattr("cv2.imdecode", decode)
    assert codec.decode(b"x").messages == ("told",)
    assert capfd.readouterr().err == "a line of somebody else\n"


def _chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


_IHDR = _chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 40, 8, 0, 0, 0, 0))
_ROWS = b"".join(b"\0" + row.tobytes() for row in GREY8)
_IDAT, _IEND, _START = _chunk(b"IDAT", zlib.compress(_ROWS)), _chunk(b"IEND"), b"\x89PNG\r\n\x1a\n"
PNGS: dict[str, tuple[bytes, str]] = {
    "too many pixels": (_IHDR + _chunk(b"IDAT", zlib.compress(_ROWS + b"\0" * 40)) + _IEND, "more than 1240"),
    "too few pixels": (_IHDR + _chunk(b"IDAT", zlib.compress(_ROWS[:-5])) + _IEND, "1235 of 1240"),
    "bytes behind the pixels": (_IHDR + _chunk(b"IDAT", zlib.compress(_ROWS) + b"more") + _IEND, "follow its pixels"),
    "a chunk behind the pixels": (_IHDR + _IDAT + _chunk(b"IDAT", b"more") + _IEND, "follow its pixels"),
    "garbage behind the end": (_IHDR + _IDAT + _IEND + b"garbage", "7 bytes after its end"),
    "zeros behind the end": (_IHDR + _IDAT + _IEND + bytes(3), "3 bytes after its end"),
    "an end with a body": (_IHDR + _IDAT + _chunk(b"IEND", b"x"), "IEND. is not empty"),
    "no end": (_IHDR + _IDAT, "is incomplete"),
    "a filter of no kind": (
        _IHDR + _chunk(b"IDAT", zlib.compress(b"\7" + _ROWS[1:])) + _IEND,
        "bad adaptive filter value",
    ),
    "an unknown chunk that is critical": (_IHDR + _chunk(b"ABCD") + _IDAT + _IEND, "ABCD"),
    "pixels in two places": (
        _IHDR + _chunk(b"IDAT", zlib.compress(_ROWS)[:9]) + _chunk(b"tEXt", b"a\0b")
        + _chunk(b"IDAT", zlib.compress(_ROWS)[9:]) + _IEND,
        "IDAT",
    ),
    "a wrong checksum": (_IHDR + _IDAT[:-1] + bytes([_IDAT[-1] ^ 1]) + _IEND, "wrong checksum"),
    "a method of no kind": (
        _chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 40, 8, 0, 9, 0, 0)) + _IDAT + _IEND,
        "(?i)compression method",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PNGS)
def test_png_that_is_not_one_sound_image(tmp_path: Path, capfd: pytest.CaptureFixture[str], case: str) -> None:
    chunks, words = PNGS[case]
    with pytest.raises(InputError, match=words):
        _read(tmp_path, _START + chunks)
    assert capfd.readouterr() == ("", "")


_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("shape", [(40, 30), (5, 1), (1, 5), (3, 3)])
def test_interlaced_png(tmp_path: Path, mode: str, shape: tuple[int, int]) -> None:
    """By hand: Pillow writes none. Each pass holds its own rows (PNG, 8.2)."""
    grey = (GREY16 if mode == "I;16" else GREY8)[: shape[0], : shape[1]]
    depth, colour, samples = {
        "L": (8, 0, 1), "LA": (8, 4, 2), "RGB": (8, 2, 3), "RGBA": (8, 6, 4), "I;16": (16, 0, 1),
    }[mode]  # fmt: skip
    full = np.dstack([grey] * samples)
    if samples in (2, 4):
        full[..., -1] = 255
    packed = b""
    for top, left, down, right in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        part = full[top::down, left::right]
        packed += b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in part if part.size)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], depth, colour, 0, 0, 1))
    content = _START + header + _chunk(b"IDAT", zlib.compress(packed)) + _IEND
    np.testing.assert_array_equal(_read(tmp_path, content).pixels, grey, strict=True)


def test_a_colour_profile_and_texts_are_passed_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    profile = _chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))
    mammogram = _read(tmp_path, _START + _IHDR + profile + _chunk(b"tEXt", b"a\0b") + _IDAT + _IEND)
    np.testing.assert_array_equal(mammogram.pixels, GREY8)
    assert capfd.readouterr() == ("", "")


def test_the_number_of_chunks_is_limited(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"more than {MAX_CHUNKS} chunks"):
        _read(tmp_path, _START + _IHDR + _chunk(b"tEXt") * MAX_CHUNKS + _IDAT + _IEND)


def test_the_number_of_strips_is_limited(tmp_path: Path) -> None:
    most = tiff.MOST_VALUES
    with pytest.raises(InputError, match=f"{most + 1} values, expected up to {most}"):
        _read(tmp_path, tiff_of([b"\0"] * (most + 1), {256: (LONG, [1]), 257: (LONG, [most + 1]), 278: (LONG, [1])}))


def test_strips_that_lie_within_each_other(tmp_path: Path) -> None:
    content = bytearray(
        tiff_of(
            [b"abc"] * 40,
            {
                256: (LONG, [3]),
                257: (LONG, [40]),
                258: (SHORT, [8]),
                259: (SHORT, [5]),
                262: (SHORT, [1]),
                278: (LONG, [1]),
            },
        )
    )
    content = content.replace(struct.pack("<I", 3) * 40, struct.pack("<I", 300) * 40)
    with pytest.raises(InputError, match="state 12000 bytes, the file has"):
        _read(tmp_path, bytes(content))


class _Counting:
    """A zlib inflater that counts the bytes it is given."""

    given = 0

    def __init__(self, make: Callable[..., object]) -> None:
        self._inflater = make()

    def decompress(self, data: bytes, most: int) -> bytes:
        _Counting.given += len(data)
        return self._inflater.decompress(data, most)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inflater, name)


def _moved_strip(content: bytes, offset: int) -> bytes:
    """A TIFF of one strip that states another place for it."""
    entry = content.rindex(struct.pack("<HHI", 273, LONG, 1))
    return content[: entry + 8] + struct.pack("<I", offset) + content[entry + 12 :]


PLAIN = samples_tiff(GREY16[..., None])


@pytest.mark.parametrize("offset", [0, 1, 4, 7, 9, 40])
def test_a_strip_within_the_header_or_the_directory(tmp_path: Path, offset: int) -> None:
    """Its pixels end where the directory begins."""
    assert struct.unpack_from("<I", PLAIN, 4) == (8 + GREY16.nbytes,)
    np.testing.assert_array_equal(_read(tmp_path, _moved_strip(PLAIN, 8)).pixels, GREY16)
    with pytest.raises(InputError, match=rf"strip or tile 0: it begins at byte {offset} and overlaps"):
        _read(tmp_path, _moved_strip(PLAIN, offset))


def test_a_strip_within_the_places_of_strips(tmp_path: Path) -> None:
    """Three strips of a row each, the last one over the array of their places."""
    rows = [GREY16[i].tobytes() for i in range(3)]
    fields = {256: (LONG, [30]), 257: (LONG, [3]), 258: (SHORT, [16]), 259: (SHORT, [1]), 262: (SHORT, [1])}
    content = bytearray(tiff_of(rows, fields | {277: (SHORT, [1]), 278: (LONG, [1])}))
    places = content.index(struct.pack("<3I", 8, 68, 128))
    assert places == 188
    struct.pack_into("<I", content, places + 8, 130)
    with pytest.raises(InputError, match="strip or tile 2: it begins at byte 130"):
        _read(tmp_path, bytes(content))


def test_a_message_of_two_lines_leaves_nothing_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with BytesIO() as file:
        Image.fromarray(SMOOTH).save(file, "jpeg", progressive=True)
        stream = file.getvalue()
    fields = {256: (LONG, [48]), 257: (LONG, [64]), 258: (SHORT, [8]), 259: (SHORT, [7]), 262: (SHORT, [1])}
    with pytest.raises(InputError, match="progressive mode"):
        _read(tmp_path, tiff_of([stream], fields | {277: (SHORT, [1]), 278: (LONG, [64])}))
    assert capfd.readouterr() == ("", "")


def test_a_large_deflated_strip_is_inflated_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is counted in bytes given to zlib: all that is left of 12 MB again for each 64 kB would be 1,000 MB."""
    pixels = RNG.integers(0, 65536, (3000, 2000)).astype(np.uint16)
    strip = zlib.compress(pixels.tobytes(), 1)
    fields = {
        256: (LONG, [2000]),
        257: (LONG, [3000]),
        258: (SHORT, [16]),
        259: (SHORT, [8]),
        262: (SHORT, [1]),
        278: (LONG, [3000]),
    }
    make, _Counting.given = zlib.decompressobj, 0
    monkeypatch.setattr("glam_deploy.images.structure.zlib.decompressobj", lambda: _Counting(make))
    np.testing.assert_array_equal(_read(tmp_path, tiff_of([strip], {**fields, 278: (LONG, [3000])})).pixels, pixels)
    assert _Counting.given < 3 * len(strip)

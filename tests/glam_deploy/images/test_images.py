"""PNG, TIFF and npy: files written by Pillow, OpenCV and numpy, read back."""

import shlex
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from glam_deploy.errors import GlamError, InputError
from glam_deploy.images.image_files import read_array, read_image, read_pixels
from glam_deploy.preprocess import prepare
from glam_deploy.reading import read
from glam_deploy.records import Mammogram, View
from glam_export.demo.phantom import phantom_view

GREY16 = np.random.default_rng(3).integers(0, 65536, (40, 30)).astype(np.uint16)
GREY8 = (GREY16 >> 8).astype(np.uint8)


def _pillow(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("pixels", [GREY16, GREY8], ids=["16 bit", "8 bit"])
@pytest.mark.parametrize(("suffix", "kind"), [("png", "png"), ("tif", "tiff"), ("TIFF", "tiff")])
def test_grey_is_read_as_stored(tmp_path: Path, pixels: np.ndarray, suffix: str, kind: str) -> None:
    path = tmp_path / f"Übersicht Σ.{suffix}"
    mammogram = read_image(_pillow(path, pixels, format=kind), view=View.R_CC, horizontal_flip=True)
    np.testing.assert_array_equal(mammogram.pixels, pixels, strict=True)
    assert (mammogram.view, mammogram.horizontal_flip, mammogram.notices) == (View.R_CC, True, ())
    assert (mammogram.source.name, mammogram.source.kind) == (path.name, kind)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff(tmp_path: Path, compression: str) -> None:
    path = _pillow(tmp_path / "a.tif", GREY8, compression=compression)
    np.testing.assert_array_equal(read_image(path, view=View.L_CC).pixels, GREY8, strict=True)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path: Path, dtype: str, order: str) -> None:
    np.save(tmp_path / "a.npy", np.asarray(GREY8, dtype, order=order))
    pixels = read_image(tmp_path / "a.npy", view=View.L_CC).pixels
    assert pixels.dtype == {"u1": np.uint8, "u2": np.uint16, "f4": np.float32, "f8": np.float32}[dtype[-2:]]
    np.testing.assert_array_equal(pixels, GREY8)
    assert pixels.flags.c_contiguous


def test_float_tiff(tmp_path: Path) -> None:
    values = GREY16.astype(np.float32) / 7
    read = read_image(_pillow(tmp_path / "a.tif", values), view=View.L_CC).pixels
    np.testing.assert_array_equal(read, values, strict=True)


@pytest.mark.parametrize("pixels", [GREY8, GREY16], ids=["8 bit", "16 bit"])
def test_rgb_that_is_grey_is_read_with_a_notice(tmp_path: Path, pixels: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([pixels] * 3))
    mammogram = read_image(tmp_path / "a.png", view=View.L_CC)
    np.testing.assert_array_equal(mammogram.pixels, pixels, strict=True)
    assert [notice.code for notice in mammogram.notices] == ["rgb-grey"]


@pytest.mark.parametrize(
    ("channels", "codes"), [(1, ["alpha-dropped"]), (3, ["alpha-dropped", "rgb-grey"])], ids=["grey", "RGB"]
)
def test_opaque_alpha_is_left_out_with_a_notice_and_transparency_refused(
    tmp_path: Path, channels: int, codes: list[str]
) -> None:
    alpha = np.full_like(GREY8, 255)
    mammogram = read_image(_pillow(tmp_path / "a.png", np.dstack([*[GREY8] * channels, alpha])), view=View.L_CC)
    np.testing.assert_array_equal(mammogram.pixels, GREY8, strict=True)
    assert [notice.code for notice in mammogram.notices] == codes
    alpha[3, 3] = 254
    with pytest.raises(InputError, match="transparent"):
        read_image(_pillow(tmp_path / "a.png", np.dstack([*[GREY8] * channels, alpha])), view=View.L_CC)


@pytest.mark.parametrize("pixels", [GREY8, GREY16], ids=["8 bit", "16 bit"])
def test_grey_png_with_alpha_keeps_all_bits(tmp_path: Path, pixels: np.ndarray) -> None:
    """A PNG of colour type 4, written here by the specification (PNG, 5.3, 9.2, 11.2)."""
    samples = np.dstack([pixels, np.full_like(pixels, np.iinfo(pixels.dtype).max)])
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(len(samples), -1).view(np.uint8)
    raw = np.insert(rows, 0, 0, axis=1).tobytes()
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8 * pixels.itemsize, 4, 0, 0, 0)
    chunks = (b"IHDR" + head, b"IDAT" + zlib.compress(raw), b"IEND")
    parts = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    mammogram = read_image(tmp_path / "a.png", view=View.L_CC)
    np.testing.assert_array_equal(mammogram.pixels, pixels, strict=True)
    assert [notice.code for notice in mammogram.notices] == ["alpha-dropped"]


def _colour() -> np.ndarray:
    pixels = np.dstack([GREY8] * 3)
    pixels[0, 0] = (255, 0, 0)
    return pixels


def _ycbcr() -> Image.Image:
    return Image.fromarray(np.dstack([GREY8] * 3)).convert("YCbCr")


def _npy_of(*version: int, shape: str = "(40, 30)") -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header) + 1)
    return b"\x93NUMPY" + bytes(version) + length + header + b"\n" + GREY8.tobytes()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_of_any_version_and_of_python_2_is_read_without_a_word(
    tmp_path: Path, version: tuple[int, int], recwarn: pytest.WarningsRecorder
) -> None:
    for shape in ("(40, 30)", "(40L, 30L)")[: 1 if version == (3, 0) else 2]:
        (tmp_path / "a.npy").write_bytes(_npy_of(*version, shape=shape))
        np.testing.assert_array_equal(read_pixels(tmp_path / "a.npy")[0], GREY8, strict=True)
    assert not recwarn.list


MEANINGS: dict[str, Callable[[Path], object]] = {
    "16 bits, white is 0": lambda path: Image.fromarray(65535 - GREY16).save(path, tiffinfo={262: 0}),
    "8 bits, white is 0": lambda path: Image.fromarray(GREY8).save(path, tiffinfo={262: 0}),
    "palette": lambda path: Image.fromarray(GREY8).convert("P").save(path),
    "YCbCr": lambda path: _ycbcr().save(path),
}


@pytest.mark.parametrize("kind", MEANINGS)
@pytest.mark.skipif(not shutil.which("gm"), reason="gm is not installed (Debian package graphicsmagick)")
def test_the_command_that_is_named_makes_a_grey_picture_of_other_tiffs(tmp_path: Path, kind: str) -> None:
    MEANINGS[kind](tmp_path / "in.tif")
    with pytest.raises(InputError, match=r"PhotometricInterpretation is \d \(.*`gm convert") as caught:
        read_pixels(tmp_path / "in.tif")
    command = shlex.split(str(caught.value).split("`")[1])
    subprocess.run(command, cwd=tmp_path, check=True)
    pixels = read_pixels(tmp_path / "out.png")[0].astype(int)
    expected = (GREY16 if kind.startswith("16") else GREY8).astype(int)
    assert np.abs(pixels - expected).max() <= 1


def _two_pages(path: Path) -> None:
    Image.fromarray(GREY8).save(path, save_all=True, append_images=[Image.fromarray(GREY8)])


def _bomb(path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 16, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)


def _signed_tiff(path: Path) -> None:
    cv2.imwrite(str(path), GREY8.astype(np.int16))


REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    ("a.png", lambda p: Image.fromarray(_colour()).save(p), "colour"),
    ("a.png", lambda p: Image.fromarray(GREY8).convert("P").save(p), "palette"),
    ("a.png", lambda p: Image.fromarray(GREY8).convert("1").save(p), "1-bit"),
    ("a.png", lambda p: Image.fromarray(GREY8 % 4).convert("P").save(p, bits=2), "palette"),
    ("a.tif", lambda p: Image.fromarray(GREY8).convert("1").save(p), "1 bits"),
    ("a.tif", _two_pages, "pages"),
    (
        "a.tif",
        lambda p: Image.fromarray(GREY8).save(p, tiffinfo={262: 0}),
        "PhotometricInterpretation is 0 (MinIsWhite",
    ),
    ("a.tif", lambda p: Image.fromarray(GREY8).convert("P").save(p), "PhotometricInterpretation is 3 (palette)"),
    ("a.tif", lambda p: _ycbcr().save(p), "PhotometricInterpretation is 6 (YCbCr)"),
    (
        "a.tif",
        lambda p: Image.fromarray(GREY8).save(p, compression="packbits", tiffinfo={317: 2}),
        "predictors are defined for",
    ),
    ("a.npy", lambda p: p.write_bytes(_npy_of(9, 0)), "format version 9.0"),
    ("a.tif", lambda p: Image.fromarray(GREY8).save(p, tiffinfo={274: 6}), "Orientation is 6"),
    ("a.tif", _signed_tiff, "format 2"),
    ("a.png", lambda p: Image.fromarray(GREY16).save(p, transparency=5), "tRNS"),
    ("a.png", lambda p: Image.fromarray(GREY8).save(p, transparency=5), "tRNS"),
    ("a.png", lambda p: Image.fromarray(np.dstack([GREY8] * 3)).save(p, transparency=(5, 5, 5)), "tRNS"),
    ("a.png", _bomb, "60000 x 60000"),
    ("a.png", lambda p: p.write_bytes(b""), "empty (0 bytes)"),
    ("a.png", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), "incomplete"),
    ("a.png", lambda p: p.write_bytes(b"no picture, certainly"), "expected DICOM, PNG, TIFF or npy"),
    ("a.png", lambda p: Image.fromarray(GREY8).save(p, format="TIFF"), "suffix .png means png"),
    ("a.npy", lambda p: np.save(p, GREY8.astype(np.int16)), "int16"),
    ("a.npy", lambda p: np.save(p, GREY8[None]), "[1, 40, 30]"),
    ("a.npy", lambda p: np.save(p, np.array([{"a": 1}]), allow_pickle=True), "Python objects"),
    ("a.npy", lambda p: np.save(p, GREY8.astype(np.complex64)), "complex64 (complex numbers)"),
    ("a.npy", lambda p: np.save(p, np.array([["a"]])), "(text)"),
    ("a.npy", lambda p: np.save(p, np.zeros((0, 5), np.uint8)), "0 x 5"),
]


@pytest.mark.parametrize(("name", "make", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_what_would_need_a_guess_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], object], words: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(InputError) as caught:
        read_image(tmp_path / name, view=View.L_CC)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("a.tif", np.float32([[-1, 2]]), "smallest pixel is -1"),
        ("a.tif", np.float32([[np.nan, 2]]), "NaN"),
        ("a.npy", np.array([[np.inf]]), "infinite"),
        ("a.npy", np.float32([[0, 3e38]]), r"The largest pixel is 3e\+38; expected values up to 4\.29497e\+09"),
        ("a.tif", np.float32([[0, 4294967808]]), "The largest pixel is"),
        ("a.npy", np.array([[1e300]]), "infinite"),
    ],
)
def test_values_that_preprocessing_refuses_arrive_there_unchanged(
    tmp_path: Path, name: str, values: np.ndarray, words: str
) -> None:
    np.save(tmp_path / name, values) if name.endswith("npy") else _pillow(tmp_path / name, values)
    mammogram = read_image(tmp_path / name, view=View.L_CC)
    with pytest.raises(InputError, match=words):
        prepare(mammogram)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.png"):
        with pytest.raises(InputError, match="cannot be read"):
            read_image(path, view=View.L_CC)


def test_read_array_gives_the_array_back(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), array, strict=True)
    with pytest.raises(InputError, match="not a npy"):
        read_array(_pillow(tmp_path / "a.png", GREY8))


@pytest.mark.parametrize("kind", ["png", "tiff", "npy"])
def test_damage_gives_a_mammogram_or_an_error_of_ours(tmp_path: Path, kind: str) -> None:
    stream = BytesIO()
    np.save(stream, GREY16) if kind == "npy" else Image.fromarray(GREY16).save(stream, format=kind)
    content, rng = stream.getvalue(), np.random.default_rng(5)
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(int(rng.integers(1, 4))):
            damaged[int(rng.integers(rng.choice([160, len(content)])))] = int(rng.integers(256))
        (tmp_path / "a").write_bytes(damaged[: int(rng.integers(len(damaged)))] if rng.random() < 0.3 else damaged)
        try:
            assert isinstance(read_image(tmp_path / "a", view=View.L_CC), Mammogram)
        except GlamError:
            continue


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_png_that_exif_turns(tmp_path: Path, orientation: int) -> None:
    """Written by Pillow. Browsers and Pillow's exif_transpose turn it, OpenCV does not with IMREAD_UNCHANGED."""
    image = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 100)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "L-CC.png", exif=exif)
    if orientation == 1:
        np.testing.assert_array_equal(read_pixels(tmp_path / "L-CC.png")[0], np.asarray(image))
        return
    with pytest.raises(InputError, match=f"png's Exif Orientation is {orientation}, expected 1"):
        read_pixels(tmp_path / "L-CC.png")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_swapped_bytes_are_refused(tmp_path: Path, suffix: str) -> None:
    pixels = phantom_view(1, View.L_CC, shape=(1024, 832)).pixels
    for name, written in {"right": pixels, "swapped": pixels.byteswap()}.items():
        path = tmp_path / f"{name}{suffix}"
        np.save(path, written) if suffix == ".npy" else cv2.imwrite(str(path), written)
        image = read_image(path, view=View.L_CC)
        assert np.array_equal(image.pixels, written)
        if name == "right":
            prepare(image)
        else:
            with pytest.raises(InputError, match="The two bytes of each pixel are swapped"):
                prepare(image)


TURNED = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
"""Exif data with the tag Orientation (0x0112) of 6."""
PROFILE = b"\nexif\n%8d\n%s\n" % (len(TURNED), TURNED.hex().encode())
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"/></x:xmpmeta>'
TURNED_TEXTS = {
    "profile, packed": (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(PROFILE)),
    "profile": (b"tEXt", b"Raw profile type exif\0" + PROFILE),
    "XMP": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "XMP, packed": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
    "XMP element": (
        b"iTXt",
        b"XML:com.adobe.xmp\0\0\0\0\0"
        + XMP.replace(b' tiff:Orientation="6"', b"").replace(b"/>", b"><tiff:Orientation>6</tiff:Orientation>"),
    ),
}


@pytest.mark.parametrize("kind", TURNED_TEXTS)
def test_an_orientation_in_a_text_is_refused(tmp_path: Path, kind: str) -> None:
    """As ImageMagick and Photoshop write it, and Pillow finds it."""
    name, content = TURNED_TEXTS[kind]
    path = tmp_path / "L-CC.png"
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)).save(path)
    file = path.read_bytes()
    assert read(path).pixels.shape == (64, 64)
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    path.write_bytes(file[:33] + chunk + file[33:])
    with Image.open(path) as image:
        assert image.getexif()[0x0112] == 6
    with pytest.raises(InputError, match=r"Exif Orientation is 6, expected 1"):
        read(path)
    harmless = content.replace(b'Orientation="6"', b'Orientation="1"')
    if harmless != content:
        chunk = struct.pack(">I", len(content)) + name + harmless + struct.pack(">I", zlib.crc32(name + harmless))
        path.write_bytes(file[:33] + chunk + file[33:])
        assert read(path).pixels.shape == (64, 64)

"""What other people's encoders write, in every transfer syntax a mammogram may have, bit for bit.

The libraries that Python has are always there; the programs are what `make validate` installs.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import gdcm
import imagecodecs
import numpy as np
import pytest
from expected import need
from mammograms import transcode, write_mg
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from support.streams import jpeg_2000_stream, jpeg_lossless_stream, jpeg_ls_stream, tissue

from glam_deploy.dicom.read import read_view
from glam_deploy.records import Pixels

BITS = (8, 10, 12, 14, 16)
SHAPES = ((96, 80), (97, 71))
"""An even and an odd number of pixels, and so of bytes in most streams."""


def _pixels(bits: int, shape: tuple[int, int]) -> Pixels:
    """Tissue, the extremes side by side, and a corner of noise over the full range."""
    pixels = tissue(shape, bits=bits)
    top = (1 << bits) - 1
    pixels[40, 2:12] = [0, top] * 5
    pixels[-20:, -20:] = np.random.default_rng(bits).integers(0, top + 1, (20, 20))
    return pixels


def _write(path: Path, bits: int, shape: tuple[int, int]) -> Pixels:
    """An uncompressed file of `_pixels`."""
    pixels = _pixels(bits, shape)

    def edit(dataset: Dataset) -> None:
        dataset.Rows, dataset.Columns = shape
        dataset.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)

    write_mg(path, edit, bits=bits)
    return pixels


def _encapsulate(path: Path, syntax: uid.UID, stream: bytes) -> None:
    dataset = dcmread(path)
    dataset.PixelData = encapsulate([stream + bytes(len(stream) % 2)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)


def _program(*words: str) -> Callable[[Path, int], object]:
    """A program that turns one DICOM file into another."""

    def run(path: Path, bits: int) -> None:
        made = path.with_name("made.dcm")
        subprocess.run([*words, path, made], check=True, capture_output=True)
        made.replace(path)

    return run


def _codestream(syntax: uid.UID, *words: str, suffix: str = ".j2k") -> Callable[[Path, int], object]:
    """A program that turns a PGM into a codestream."""

    def run(path: Path, bits: int) -> None:
        pixels = dcmread(path).pixel_array
        grey, made = path.with_suffix(".pgm"), path.with_suffix(suffix)
        big = pixels.astype(">u2" if bits > 8 else "u1")
        grey.write_bytes(b"P5\n%d %d\n%d\n" % (*pixels.shape[::-1], (1 << bits) - 1) + big.tobytes())
        subprocess.run([words[0], "-i", grey, "-o", made, *words[1:]], check=True, capture_output=True)
        _encapsulate(path, syntax, made.read_bytes())

    return run


def _library(syntax: uid.UID, encode: Callable[[Pixels, int], bytes]) -> Callable[[Path, int], object]:
    return lambda path, bits: _encapsulate(path, syntax, encode(dcmread(path).pixel_array, bits))


def _by_pydicom(syntax: uid.UID, plugin: str = "") -> Callable[[Path, int], object]:
    def run(path: Path, bits: int) -> None:
        dataset = dcmread(path)
        dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
        dataset.save_as(path)

    return run


def _openjpeg(*options: str) -> Callable[[Path, int], object]:
    return _codestream(uid.JPEG2000Lossless, "opj_compress", *options)


def _grok(*options: str) -> Callable[[Path, int], object]:
    return _codestream(uid.JPEG2000Lossless, "grk_compress", *options)


def _openjph(syntax: uid.UID, order: str) -> Callable[[Path, int], object]:
    return _codestream(syntax, "ojph_compress", "-reversible", "true", "-prog_order", order, suffix=".j2c")


LIBRARIES: dict[str, Callable[[Path, int], object]] = {
    "gdcm JPEG Lossless": lambda path, _: transcode(path, gdcm.TransferSyntax.JPEGLosslessProcess14),
    "gdcm JPEG Lossless SV1": lambda path, _: transcode(path, gdcm.TransferSyntax.JPEGLosslessProcess14_1),
    "gdcm JPEG-LS": lambda path, _: transcode(path, gdcm.TransferSyntax.JPEGLSLossless),
    "gdcm JPEG 2000": lambda path, _: transcode(path, gdcm.TransferSyntax.JPEG2000Lossless),
    "gdcm implicit": lambda path, _: transcode(path, gdcm.TransferSyntax.ImplicitVRLittleEndian),
    "imagecodecs JPEG Lossless (libjpeg-turbo)": _library(uid.JPEGLosslessSV1, jpeg_lossless_stream),
    "imagecodecs JPEG Lossless (liblj92)": _library(
        uid.JPEGLossless, lambda pixels, bits: bytes(imagecodecs.ljpeg_encode(pixels, bitspersample=bits))
    ),
    "imagecodecs JPEG-LS": _library(uid.JPEGLSLossless, lambda pixels, _: bytes(imagecodecs.jpegls_encode(pixels))),
    "imagecodecs JPEG 2000": _library(
        uid.JPEG2000Lossless,
        lambda pixels, bits: bytes(
            imagecodecs.jpeg2k_encode(pixels, codecformat="J2K", level=0, reversible=True, bitspersample=bits)
        ),
    ),
    "imagecodecs JP2": _library(
        uid.JPEG2000Lossless,
        lambda pixels, bits: bytes(imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, bitspersample=bits)),
    ),
    "imagecodecs HTJ2K": _library(uid.HTJ2KLossless, lambda pixels, _: bytes(imagecodecs.htj2k_encode(pixels))),
    "CharLS JPEG-LS": _library(uid.JPEGLSLossless, jpeg_ls_stream),
    "pylibjpeg JPEG 2000": _library(uid.JPEG2000Lossless, jpeg_2000_stream),
    "pylibjpeg JPEG 2000, tagged as perhaps lossy": _library(uid.JPEG2000, jpeg_2000_stream),
    "pydicom RLE": _by_pydicom(uid.RLELossless, "pydicom"),
    "pydicom JPEG 2000": _by_pydicom(uid.JPEG2000Lossless),
    "pydicom JPEG-LS": _by_pydicom(uid.JPEGLSLossless),
}
PROGRAMS: dict[str, Callable[[Path, int], object]] = {
    "dcmcjpeg SV1": _program("dcmcjpeg", "+e1"),
    "dcmcjpeg SV1 in fragments": _program("dcmcjpeg", "+e1", "+fs", "1"),
    "dcmcjpeg SV1 without offset table": _program("dcmcjpeg", "+e1", "-ot"),
    **{f"dcmcjpeg P14 {i}": _program("dcmcjpeg", "+el", "+sv", str(i)) for i in range(1, 8)},
    "dcmcjpls": _program("dcmcjpls"),
    "dcmcjpls thresholds": _program("dcmcjpls", "+t1", "5", "+t2", "9", "+t3", "30", "+rs", "50"),
    "dcmcjpls cooked": _program("dcmcjpls", "+pc"),
    "dcmcrle": _program("dcmcrle"),
    **{f"dcmconv {name}": _program("dcmconv", name) for name in ("+te", "+ti", "+tb", "+td")},
    **{f"gdcmconv {name}": _program("gdcmconv", name) for name in ("-J", "-L", "-K", "-R", "-M", "-X", "-d")},
    "gdcmconv -K tiles": _program("gdcmconv", "-K", "-t", "32,32"),
    "opj_compress": _openjpeg(),
    "opj_compress tiles": _openjpeg("-t", "40,30", "-n", "3"),
    "opj_compress tile-parts": _openjpeg("-TP", "R", "-PLT", "-TLM"),
    "opj_compress layers": _openjpeg("-r", "20,8,1"),
    "opj_compress markers": _openjpeg("-SOP", "-EPH", "-c", "[64,64],[32,32]", "-b", "16,16", "-n", "3"),
    **{f"opj_compress {order}": _openjpeg("-p", order) for order in ("LRCP", "RLCP", "RPCL", "PCRL", "CPRL")},
    **{f"opj_compress mode {mode}": _openjpeg("-M", str(mode)) for mode in (1, 2, 4, 8, 16, 32, 5, 20, 63)},
    "grk_compress": _grok(),
    "grk_compress tiles": _grok("-t", "40,30", "-n", "3"),
    "grk_compress layers": _grok("-r", "20,8,1"),
    **{f"grk_compress mode {mode}": _grok("-M", str(mode)) for mode in (1, 2, 4, 8, 16, 32, 63)},
    "grk_compress HTJ2K": _codestream(uid.HTJ2KLossless, "grk_compress", "-M", "64"),
    **{f"ojph_compress {order}": _openjph(uid.HTJ2KLossless, order) for order in ("LRCP", "RLCP", "PCRL", "CPRL")},
    "ojph_compress RPCL": _openjph(uid.HTJ2KLosslessRPCL, "RPCL"),
    "ojph_compress tagged as perhaps lossy": _openjph(uid.HTJ2K, "RPCL"),
}  # fmt: skip
PACKAGES = {"dcmc": "dcmtk", "gdcm": "gdcm-tools", "opj_": "openjpeg", "grk_": "grok", "ojph": "openjph"}


def _check(name: str, encode: Callable[[Path, int], object], path: Path, shape: tuple[int, int]) -> None:
    odd_for_gdcm = "gdcm" in name and shape == SHAPES[1]
    for bits in BITS[odd_for_gdcm:]:  # gdcm does not encode an odd number of bytes
        pixels = _write(path, bits, shape)
        encode(path, bits)
        np.testing.assert_array_equal(read_view(path).pixels, pixels, err_msg=f"{name}, {bits} bits", strict=True)


@pytest.mark.parametrize("shape", SHAPES, ids=["even", "odd"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_what_a_library_encodes_is_read_bit_for_bit(tmp_path: Path, name: str, shape: tuple[int, int]) -> None:
    _check(name, LIBRARIES[name], tmp_path / "image.dcm", shape)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=["even", "odd"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_program_encodes_is_read_bit_for_bit(tmp_path: Path, name: str, shape: tuple[int, int]) -> None:
    program = name.split(maxsplit=1)[0]
    need(PACKAGES[program[:4]], "" if shutil.which(program) else program)
    _check(name, PROGRAMS[name], tmp_path / "image.dcm", shape)

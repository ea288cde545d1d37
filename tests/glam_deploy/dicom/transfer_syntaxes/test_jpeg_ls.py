"""Small images of many kinds as JPEG-LS: never refused as encoded, and never read with other pixels without their end.

About one in 200 ends at the end of CharLS's read buffer, where it takes a bit behind the data without a word.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import jpeg_ls as pyjpegls
import numpy as np
import pytest
from expected import need
from mammograms import write_mg
from pydicom.dataset import Dataset
from support.streams import tissue

from glam_deploy.dicom.read import read_view
from glam_deploy.dicom.transfer_syntaxes import jpeg_ls
from glam_deploy.dicom.transfer_syntaxes.segments import StreamError
from glam_deploy.records import Pixels

BITS = (8, 10, 12, 16)


ENCODERS: dict[str, Callable[[Pixels, int, int], bytes]] = {
    "imagecodecs": lambda pixels, _, near: bytes(imagecodecs.jpegls_encode(pixels, level=near)),
    "pyjpegls": lambda pixels, bits, near: bytes(
        pyjpegls.encode_buffer(pixels.tobytes(), *pixels.shape, 1, bits, near, 0)
    ),
}


def _crops(bits: int, count: int) -> Iterator[Pixels]:
    """Crops of up to 39 x 39 pixels of tissue: as they are, noisier, and half of them background."""
    rng, image = np.random.default_rng(bits), tissue((400, 300), bits=bits)
    for i in range(count):
        (rows, columns), (top, left) = rng.integers(8, 40, 2), rng.integers(0, (360, 180))
        crop = image[top : top + rows, left : left + columns].astype(np.int64)
        crop += rng.integers(0, 16, crop.shape) * (i % 3 == 1)
        crop[:, columns // 2 :] *= i % 3 != 2
        yield np.ascontiguousarray(crop.clip(0, (1 << bits) - 1).astype(image.dtype))


def _check(encoder: str, bits: int, near: int, count: int, *, cut_every: int) -> None:
    for i, pixels in enumerate(_crops(bits, count)):
        stream = ENCODERS[encoder](pixels, bits, near)
        assert np.abs(jpeg_ls.decode(stream, pixels.shape).astype(int) - pixels).max() <= near
        for lost in range(1, 5) if i % cut_every == 0 else ():
            _check_cut(stream[: -2 - lost], pixels.shape)


def _check_cut(begun: bytes, shape: tuple[int, int]) -> None:
    for data in (begun, begun.removesuffix(b"\xff")):
        with pytest.raises(StreamError):
            jpeg_ls.decode(data + b"\xff\xd9", shape)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_small_images_are_read_whole_or_refused_when_cut(encoder: str, bits: int) -> None:
    _check(encoder, bits, 0, 400, cut_every=10)


@pytest.mark.slow
@pytest.mark.parametrize("near", [0, 2])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_more_small_images_are_read_whole_or_refused_when_cut(encoder: str, bits: int, near: int) -> None:
    _check(encoder, bits, near, 500, cut_every=1)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("+t1", "5", "+t2", "9", "+t3", "30", "+rs", "50"), ("+pc",)], ids=" ".join)
@pytest.mark.parametrize("bits", BITS)
def test_small_images_of_dcmtk_are_read_bit_for_bit(tmp_path: Path, bits: int, options: tuple[str, ...]) -> None:
    need("dcmtk", "" if shutil.which("dcmcjpls") else "dcmcjpls")
    made = tmp_path / "made.dcm"
    for pixels in _crops(bits, 60):

        def edit(dataset: Dataset, pixels: Pixels = pixels) -> None:
            dataset.Rows, dataset.Columns = pixels.shape
            dataset.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)

        path = write_mg(tmp_path / "image.dcm", edit, bits=bits)
        subprocess.run(["dcmcjpls", *options, path, made], check=True, capture_output=True)
        np.testing.assert_array_equal(read_view(made).pixels, pixels, strict=True)


def test_a_run_of_fill_bytes_is_read_once() -> None:
    stream = imagecodecs.jpegls_encode(np.zeros((8, 8), np.uint8))
    with pytest.raises(StreamError):  # in quadratic time this takes an hour
        jpeg_ls.decode(stream[:-2] + b"\xff" * 4_000_000 + b"\0", (8, 8))

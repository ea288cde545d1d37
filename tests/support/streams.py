"""Encoders of the JPEG family for tests, from libraries other than the decoders under test where there is one."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import imagecodecs
import jpeg_ls
import numpy as np
from openjpeg import utils as openjpeg
from pydicom.pixels.encoders import RLELosslessEncoder

from glam_deploy.dicom.transfer_syntaxes import jpeg2000, jpeg_lossless, rle
from glam_deploy.dicom.transfer_syntaxes import jpeg_ls as reader_of_jpeg_ls
from glam_deploy.dicom.transfer_syntaxes.segments import StreamError
from glam_deploy.records import Pixels


def tissue(shape: tuple[int, int] = (96, 80), *, bits: int = 12, seed: int = 1) -> Pixels:
    """A smooth half-ellipse with noise on a background of 0, values up to the largest: uint8 or uint16."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None]
    depth = 1 - (2 * rows - 1) ** 2 - columns**2 * 1.3
    noise = np.random.default_rng(seed).normal(0, 0.01, shape)
    values = np.where(depth > 0, np.clip(depth + noise, 0.01, 1), 0) * ((1 << bits) - 1)
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


def jpeg_lossless_stream(pixels: Pixels, bits: int, *, predictor: int = 1) -> bytes:
    """By libjpeg-turbo."""
    return bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=predictor, bitspersample=bits))


def jpeg_ls_stream(pixels: Pixels, bits: int) -> bytes:
    return bytes(jpeg_ls.encode_buffer(pixels.tobytes(), *pixels.shape, 1, bits, 0, 0))


def jpeg_2000_stream(pixels: Pixels, bits: int, **options: object) -> bytes:
    return bytes(openjpeg.encode_array(pixels, bits_stored=bits, **options))


def htj2k_stream(pixels: Pixels, bits: int) -> bytes:
    """By OpenJPH, which states 8 or 16 bits."""
    return bytes(imagecodecs.htj2k_encode(pixels))


def rle_stream(pixels: Pixels, bits: int) -> bytes:
    """By pydicom."""
    rows, columns = pixels.shape
    options = {"bits_allocated": 8 * pixels.itemsize, "bits_stored": bits, "photometric_interpretation": "MONOCHROME2"}
    options |= {"rows": rows, "columns": columns, "samples_per_pixel": 1, "pixel_representation": 0}
    return bytes(RLELosslessEncoder.encode(pixels, number_of_frames=1, **options))


ENCODERS: dict[str, Callable[[Pixels, int], bytes]] = {
    "jpeg-lossless": jpeg_lossless_stream,
    "jpeg-lossless-p6": partial(jpeg_lossless_stream, predictor=6),
    "jpeg-ls": jpeg_ls_stream,
    "jpeg-2000": jpeg_2000_stream,
    "htj2k": htj2k_stream,
    "rle": rle_stream,
}


def decode(name: str, stream: bytes, pixels: Pixels) -> Pixels:
    """The decoder under test for a stream of `ENCODERS[name]` that claims to show `pixels`."""
    if name == "rle":
        return rle.decode(stream, pixels.shape, 8 * pixels.itemsize)
    if name == "jpeg-ls":
        return reader_of_jpeg_ls.decode(stream, pixels.shape)
    if name.startswith("jpeg-lossless"):
        return jpeg_lossless.decode(stream, pixels.shape)
    return jpeg2000.decode(stream, pixels.shape).pixels


def other_pixels(name: str, streams: Iterable[bytes], pixels: Pixels) -> int:
    """How many damaged streams decode to pixels other than `pixels` instead of being refused."""
    found = 0
    for stream in streams:
        try:
            found += not np.array_equal(decode(name, stream, pixels), pixels)
        except StreamError:
            continue
    return found


def cut(stream: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """The stream cut at `count` random places and at each of its last 24 bytes, half of them closed as by a repair."""
    places = [*range(len(stream) - 24, len(stream)), *np.random.default_rng(seed).integers(1, len(stream), count)]
    for place in places:
        yield stream[:place]
        yield stream[:place].removesuffix(b"\xff") + b"\xff\xd9"


def changed(stream: bytes, count: int, seed: int = 0, *, length: int = 1) -> Iterator[bytes]:
    """`count` copies, each with `length` bytes in a row changed at a random place."""
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(stream) - length + 1, count):
        damaged = bytearray(stream)
        for i in range(place, place + length):
            damaged[i] ^= int(rng.integers(1, 256))
        yield bytes(damaged)

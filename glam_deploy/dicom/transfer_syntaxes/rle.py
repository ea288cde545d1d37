"""RLE Lossless (PS3.5 Annex G): imagecodecs unpacks each segment, which must give exactly the bytes of the image."""

import struct
from itertools import pairwise

import numpy as np

from glam_deploy.dicom.transfer_syntaxes.segments import StreamError
from glam_deploy.records import Pixels

_HEADER = 64
"""Bytes of the RLE header (PS3.5 G.5)."""


def decode(stream: bytes, shape: tuple[int, int], bits_allocated: int) -> Pixels:
    """Decode a frame of `shape` (rows, columns) with one sample per pixel, 8 or 16 bits allocated.

    Returns uint8 or uint16 [rows, columns]; bits above BitsStored are not changed. Raises StreamError.
    """
    segments = _segments(stream, bits_allocated // 8)
    # the most significant byte comes first (G.2)
    planes = [np.frombuffer(_unpacked(segment, shape[0] * shape[1]), np.uint8) for segment in segments]
    return np.stack(planes, axis=-1).view(f">u{len(planes)}").reshape(shape).astype(f"u{len(planes)}")


def _segments(stream: bytes, count: int) -> list[bytes]:
    if len(stream) < _HEADER:
        raise StreamError(f"it has {len(stream)} bytes, expected at least an RLE header of {_HEADER}")
    stated, *offsets = struct.unpack_from("<16L", stream)
    if stated != count:
        raise StreamError(f"its header states {stated} segments, expected {count}")
    places = [*offsets[:count], len(stream)]
    if places[0] != _HEADER or places != sorted(set(places)):
        raise StreamError("the offsets of its segments are not ascending")
    return [stream[start:end] for start, end in pairwise(places)]


def _unpacked(segment: bytes, length: int) -> bytes:
    """The `length` bytes of a segment (G.3.2); allocates no more memory than these."""
    import imagecodecs

    # two bytes give up to 128 (G.3.1)
    if 64 * len(segment) < length:
        raise StreamError(f"a segment of {len(segment)} bytes cannot hold the {length} bytes of the image")
    try:
        # only the 0 that pads a segment to an even number of bytes may be left over (G.3.1)
        unpacked = bytes(imagecodecs.packbits_decode(segment, out=bytearray(length)))
    except imagecodecs.PackbitsError:
        unpacked = b""
    if len(unpacked) != length:
        raise StreamError(f"a segment does not contain exactly the {length} bytes of the image")
    return unpacked

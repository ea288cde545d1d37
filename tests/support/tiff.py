"""TIFF files written tag by tag (TIFF 6.0, section 2), for what no library writes."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from glam_deploy.records import Pixels

SHORT, LONG = 3, 4
_LETTERS = {1: "B", SHORT: "H", LONG: "I", 7: "B"}
Fields = Mapping[int, tuple[int, Sequence[int]]]


def tiff(strips: Sequence[bytes], fields: Fields) -> bytes:
    """Little-endian; `fields`: tag -> (type, values), those of the strips' places apart."""
    data, places = bytearray(b"II*\0\0\0\0\0"), []
    for strip in strips:
        places.append(len(data))
        data += strip + bytes(len(strip) % 2)
    every = {**fields, 273: (LONG, places), 279: (LONG, [len(strip) for strip in strips])}
    entries = b""
    for tag, (kind, values) in sorted(every.items()):
        packed = struct.pack(f"<{len(values)}{_LETTERS[kind]}", *values)
        place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", len(data))
        if len(packed) > 4:
            data += packed + bytes(len(packed) % 2)
        entries += struct.pack("<HHI", tag, kind, len(values)) + place
    data[4:8] = struct.pack("<I", len(data))
    return bytes(data) + struct.pack("<H", len(every)) + entries + bytes(4)


def samples_tiff(samples: Pixels, *, planar: bool = False, **more: tuple[int, Sequence[int]]) -> bytes:
    """Uncompressed, of uint8 or uint16 [rows, columns, samples]; `more`: fields as t338=(type, values)."""
    rows, columns, count = samples.shape
    strips = [samples[..., i].tobytes() for i in range(count)] if planar else [samples.tobytes()]
    fields: dict[int, tuple[int, Sequence[int]]] = {
        256: (LONG, [columns]), 257: (LONG, [rows]), 258: (SHORT, [8 * samples.itemsize] * count), 259: (SHORT, [1]),
        262: (SHORT, [1 if count <= 2 else 2]), 277: (SHORT, [count]), 278: (LONG, [rows]),
        284: (SHORT, [2 if planar else 1]),
    }  # fmt: skip
    fields |= {int(tag[1:]): field for tag, field in more.items()}
    return tiff(strips, fields)


def opaque(grey: Pixels) -> Pixels:
    """Grey with alpha: [rows, columns, 2]."""
    return np.dstack([grey, np.full_like(grey, np.iinfo(grey.dtype).max)])

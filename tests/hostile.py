"""DICOM objects that lie or are costly, as bytes: for tests of reading, receiving and working."""

import struct
import zlib
from pathlib import Path

from mammograms import write_mg
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

ITEM, OPEN_ITEM = b"\xfe\xff\x00\xe0" + bytes(4), b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
ITEM_END, SEQUENCE_END = b"\xfe\xff\x0d\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)

UNLISTED = b"\x08\x00\x40\x11"
"""ReferencedImageSequence."""
VIEW = b"\x54\x00\x20\x02"
"""ViewCodeSequence."""
PATIENT = b"\x10\x00\x10\x00"
"""PatientName: an element before which others are put."""


def sequence(body: bytes, tag: bytes = UNLISTED, *, length: int | None = 0xFFFFFFFF, vr: bytes = b"SQ") -> bytes:
    """Explicit VR little endian; `length` None: that of `body`."""
    told = len(body) if length is None else length
    return tag + vr + bytes(2) + struct.pack("<I", told) + body


def closed(body: bytes, tag: bytes = UNLISTED) -> bytes:
    """A sequence of undefined length with its delimiter."""
    return sequence(body + SEQUENCE_END, tag)


def nested(depth: int, tag: bytes = UNLISTED) -> bytes:
    """Sequences of undefined length within each other."""
    start = tag + b"SQ\0\0\xff\xff\xff\xff" + OPEN_ITEM
    return start * depth + (ITEM_END + SEQUENCE_END) * depth


def start_of(file: bytes) -> int:
    """Where the data set begins."""
    return 144 + int.from_bytes(file[140:144], "little")


def with_elements(
    path: Path, extra: bytes, *, before: bytes = PATIENT, drop: int = 0, syntax: UID | None = None
) -> Path:
    """A mammogram in explicit VR little endian, or deflated, with bytes put before the element `before`.

    `drop`: how many bytes from that element on are left out.
    """
    write_mg(path)
    file = path.read_bytes()
    data = file[start_of(file) :]
    at = data.index(before)
    data = data[:at] + extra + data[at + drop :]
    if syntax == DeflatedExplicitVRLittleEndian:
        write_mg(path, syntax=syntax)
        file, deflater = path.read_bytes(), zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = deflater.compress(data) + deflater.flush()
    path.write_bytes(file[: start_of(file)] + data)
    return path

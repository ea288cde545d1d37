"""DICOM objects and messages that lie or are costly, as bytes: for tests of reading, receiving and working."""

import socket
import struct
import zlib
from pathlib import Path

from mammograms import write_mg
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

MG = "1.2.840.10008.5.1.4.1.1.1.2"
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


# on the network (PS3.8)


def item(kind: int, body: bytes) -> bytes:
    return bytes([kind, 0]) + struct.pack(">H", len(body)) + body


def context(number: int, syntaxes: int = 1) -> bytes:
    """A presentation context of Verification (PS3.8 section 9.3.2.2)."""
    body = item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2") * syntaxes
    return item(0x20, bytes([number & 0xFF, 0, 0, 0]) + body)


def request(*contexts: bytes, more: bytes = b"") -> bytes:
    """An A-ASSOCIATE-RQ of STORESCU to GLAM."""
    user = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))
    names = b"GLAM".ljust(16) + b"STORESCU".ljust(16)
    body = struct.pack(">HH", 1, 0) + names + bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1")
    body += b"".join(contexts) + user + more
    return b"\x01\x00" + struct.pack(">L", len(body)) + body


def storing(sop_class: bytes, syntax: bytes = b"1.2.840.10008.1.2.1") -> bytes:
    """A request for an association with one presentation context, number 1."""
    body = item(0x30, sop_class) + item(0x40, syntax)
    return request(item(0x20, bytes([1, 0, 0, 0]) + body))


def pdv(control: int, data: bytes) -> bytes:
    """A P-DATA-TF PDU of one fragment (PS3.8 annex E)."""
    value = struct.pack(">L", len(data) + 2) + bytes([1, control]) + data
    return b"\x04\x00" + struct.pack(">L", len(value)) + value


def command(*elements: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements)


def store_command(sop_class: str, sop_uid: str) -> bytes:
    """A C-STORE-RQ (PS3.7 section 9.3.1.1)."""

    def uid(text: str) -> bytes:
        return text.encode() + b"\0" * (len(text) % 2)

    return command(
        (0x0002, uid(sop_class)), (0x0100, b"\1\0"), (0x0110, b"\1\0"), (0x0700, b"\0\0"), (0x0800, b"\1\0"),
        (0x1000, uid(sop_uid)),
    )  # fmt: skip


STORE = store_command(MG, "1.2.3")


def store(port: int, file: bytes, syntax: str, sop_uid: str) -> bytes:
    """The answer to a C-STORE of the data set in `file`, by hand: no library looks at the object before it is sent."""
    with socket.create_connection(("127.0.0.1", port), 60) as peer:
        peer.sendall(storing(MG.encode(), syntax.encode()))
        assert peer.recv(1 << 16)[0] == 2
        peer.sendall(pdv(3, store_command(MG, sop_uid)))
        data = file[start_of(file) :]
        pieces = [data[at : at + 60_000] for at in range(0, len(data), 60_000)]
        for number, piece in enumerate(pieces, 1):
            peer.sendall(pdv(2 if number == len(pieces) else 0, piece))
        return peer.recv(1 << 16)

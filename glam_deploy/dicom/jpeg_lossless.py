"""A strict look at a JPEG Lossless stream before gdcm decodes it.

gdcm ends the whole process on some damaged streams (an exception thrown through C code), so only a stream whose
structure is sound in every marker may reach it (ITU-T T.81 Annex B, process 14).
"""

import re
import struct
from collections.abc import Iterator

from glam_deploy.dicom.header import Header

_SOF3, _DHT, _EOI, _SOS, _DQT, _DRI, _COM = 0xC3, 0xC4, 0xD9, 0xDA, 0xDB, 0xDD, 0xFE
_HARMLESS = frozenset({_DQT, _DRI, _COM, *range(0xE0, 0xF0)})


def check_stream(stream: bytes, header: Header, shape: tuple[int, int]) -> None:
    """Raise ValueError unless `stream` is one sound lossless scan of one component.

    `shape`: (rows, columns) of the DICOM object, which the frame header must repeat.
    """
    if not stream.startswith(b"\xff\xd8"):
        raise ValueError("no SOI")
    frames = 0
    for marker, body, end in segments(stream):
        if marker == _SOF3:
            frames += 1
            _check_frame(body, header, shape)
        elif marker == _DHT:
            _check_tables(body)
        elif marker == _SOS:
            _check_scan(body, stream[end:])
        elif marker not in _HARMLESS:
            raise ValueError(f"marker {marker:#x}")
    if frames != 1:
        raise ValueError(f"{frames} frame headers")


def segments(stream: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, body and end of every segment up to and with SOS. Raises struct.error, ValueError."""
    at, marker = 2, 0
    while marker != _SOS:
        lead, marker, length = struct.unpack_from(">BBH", stream, at)
        end = at + 2 + length
        if lead != 0xFF or length < 2 or end > len(stream):
            raise ValueError("a segment does not end where the next begins")
        yield marker, stream[at + 4 : end], end
        at = end


def _check_frame(body: bytes, header: Header, shape: tuple[int, int]) -> None:
    precision, rows, columns, components = struct.unpack_from(">BHHB", body)
    fits = (header.bits_stored or 0) <= precision <= (header.bits_allocated or 0)
    if (rows, columns) != shape or components != 1 or len(body) != 9 or body[7] != 0x11 or not fits:
        raise ValueError("the frame header disagrees with the DICOM object")


def _check_tables(body: bytes) -> None:
    while body:
        count = sum(body[1:17])
        # differences of up to 16 bits: categories 0 to 16 (T.81 table H.2)
        if body[0] > 3 or len(body) < 17 + count or not 0 < count <= 17 or max(body[17 : 17 + count]) > 16:
            raise ValueError("a Huffman table is damaged")
        body = body[17 + count :]


def _check_scan(body: bytes, data: bytes) -> None:
    components, _, table, predictor, last, shift = struct.unpack(">6B", body)
    if components != 1 or table & 0xCF or not 1 <= predictor <= 7 or last or shift:
        raise ValueError("the scan header is damaged")
    # FF in the data is stuffed (FF 00) or a restart; an encapsulated frame may be padded behind EOI
    end = re.search(rb"\xff[^\x00\xd0-\xd7]", data)
    if end is None or data[end.start() + 1] != _EOI or data[end.end() :].strip(b"\0"):
        raise ValueError("the scan is damaged or incomplete")

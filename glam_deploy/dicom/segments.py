"""Marker segments of the JPEG family (ITU-T T.81 Annex B, T.87 Annex C, T.800 Annex A)."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA


class StreamError(ValueError):
    """A compressed stream is damaged or is not what the DICOM header says; the message quotes no header element."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A marker with its parameters."""

    marker: int
    """Second byte of the marker code, 0x01 to 0xFE."""
    body: bytes
    """Parameters behind the length field; empty for SOI and EOI, which have none."""
    end: int
    """Position of the first byte behind the segment."""


def segments(stream: bytes) -> Iterator[Segment]:
    """Every segment up to and with the first SOS or EOI of a stream of T.81 or T.87, SOI not among them.

    Any marker may be preceded by fill bytes FF (T.81 B.1.1.2). Raises StreamError.
    """
    marker, at = _marker(stream, 0)
    if marker != SOI:
        raise StreamError("it does not begin with SOI (FF D8)")
    while marker not in (SOS, EOI):
        marker, at = _marker(stream, at)
        body = b"" if marker == EOI else _body(stream, marker, at)
        at += 2 + len(body) if marker != EOI else 0
        yield Segment(marker=marker, body=body, end=at)


def parameters(layout: str, segment: Segment) -> tuple[int, ...]:
    """The first parameters of a segment, big-endian, as `struct` lays them out. Raises StreamError."""
    try:
        return struct.unpack_from(">" + layout, segment.body)
    except struct.error:
        raise StreamError(f"the segment of marker FF {segment.marker:02X} is too short") from None


def only(found: Sequence[Segment], marker: int, name: str) -> Segment:
    """The one segment with `marker`. Raises StreamError where there is none or another."""
    named = [segment for segment in found if segment.marker == marker]
    if len(named) != 1:
        raise StreamError(f"it has {len(named)} marker segments {name}, expected one")
    return named[0]


def check_claim(claimed: tuple[int, int], shape: tuple[int, int]) -> None:
    """Raise StreamError unless a stream's own (rows, columns) are those of the DICOM header, before it is decoded.

    A few bytes of a damaged stream may claim any size.
    """
    if claimed != shape:
        raise StreamError(
            f"its header states {claimed[0]} rows and {claimed[1]} columns, the DICOM header {shape[0]} and {shape[1]}"
        )


def _marker(stream: bytes, at: int) -> tuple[int, int]:
    """A marker's second byte, and where it ends."""
    lead = at
    while stream[at : at + 1] == b"\xff":
        at += 1
    if at == lead or at == len(stream):
        raise StreamError(f"a marker is missing at byte {lead}")
    return stream[at], at + 1


def _body(stream: bytes, marker: int, at: int) -> bytes:
    length = int.from_bytes(stream[at : at + 2])
    if length < 2 or at + length > len(stream):
        raise StreamError(f"the segment of marker FF {marker:02X} at byte {at} is longer than the rest of the stream")
    return stream[at + 2 : at + length]

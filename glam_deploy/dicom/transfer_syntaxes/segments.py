"""Marker segments of the JPEG family (ITU-T T.81 Annex B, T.87 Annex C, T.800 Annex A)."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA

_NOT_KEPT = frozenset({0xFE, *range(0xE0, 0xF0)})
"""COM and APP0 to APP15."""

MAX_SEGMENTS = 10_000
"""Marker segments of a stream that are looked at: a thousand times those of an image; a hostile one has millions."""


class StreamError(ValueError):
    """A compressed stream is damaged or is not what the DICOM header says; the message quotes no header element."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A marker with its parameters."""

    marker: int
    """Second byte of the marker code, 0x01 to 0xFE."""
    body: bytes
    """Parameters behind the length field; empty for SOI and EOI, which have none, and of comments and application data,
    which are not kept."""
    end: int
    """Position of the first byte behind the segment."""


def segments(stream: bytes) -> Iterator[Segment]:
    """Every segment up to and with the first SOS or EOI of a stream of T.81 or T.87, SOI not among them.

    Any marker may be preceded by fill bytes FF (T.81 B.1.1.2). Raises StreamError, also for more than `MAX_SEGMENTS`.
    """
    marker, at = _marker(stream, 0)
    if marker != SOI:
        raise StreamError("it does not begin with SOI (FF D8)")
    for _ in range(MAX_SEGMENTS):
        marker, at = _marker(stream, at)
        length = 0 if marker == EOI else _length(stream, marker, at)
        body = b"" if marker in _NOT_KEPT else stream[at + 2 : at + length]
        at += length
        yield Segment(marker=marker, body=body, end=at)
        if marker in (SOS, EOI):
            return
    raise StreamError(f"it has more than {MAX_SEGMENTS} marker segments")


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What a stream says of its own pixels."""

    precision: int
    """Bits of a pixel."""
    loss: str = ""
    """How it compresses with loss; "" where it does not."""


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


def _length(stream: bytes, marker: int, at: int) -> int:
    """Bytes of a segment behind its marker."""
    length = int.from_bytes(stream[at : at + 2])
    if length < 2 or at + length > len(stream):
        raise StreamError(f"the segment of marker FF {marker:02X} at byte {at} is longer than the rest of the stream")
    return length

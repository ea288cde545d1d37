"""Marker segments of the JPEG family (ITU-T T.81 Annex B, T.87 Annex C, T.800 Annex A)."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA

_NOT_KEPT = frozenset({0xFE, *range(0xE0, 0xF0)})
"""COM and APP0 to APP15."""

MAX_SEGMENTS = 10_000
"""Largest number of marker segments in a stream: 1,000 times those of an image; a hostile stream may have millions."""


class StreamError(ValueError):
    """A compressed stream is damaged or contradicts the DICOM header; the message quotes no element of the header."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A marker segment: marker and parameters."""

    marker: int
    """Second byte of the marker code, 0x01 to 0xFE."""
    body: bytes
    """Parameters after the length field; empty for SOI and EOI, which have none, and for comments and application data,
    which are not kept."""
    end: int
    """Position of the first byte after the segment."""


def segments(stream: bytes) -> Iterator[Segment]:
    """All segments of a T.81 or T.87 stream, without SOI, up to and including the first SOS or EOI.

    Fill bytes FF may precede any marker (T.81 B.1.1.2). Raises StreamError, also for more than `MAX_SEGMENTS`.
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
class StreamInfo:
    """Properties of the pixels that the headers of a stream state."""

    precision: int
    """Bits per pixel."""
    loss: str = ""
    """Kind of lossy compression; "" for a lossless stream."""


def parameters(layout: str, segment: Segment) -> tuple[int, ...]:
    """The first parameters of a segment, big-endian, in a `layout` of `struct`. Raises StreamError."""
    try:
        return struct.unpack_from(">" + layout, segment.body)
    except struct.error:
        raise StreamError(f"the segment of marker FF {segment.marker:02X} is too short") from None


def only(found: Sequence[Segment], marker: int, name: str) -> Segment:
    """The only segment with `marker`. Raises StreamError if there are none or several."""
    named = [segment for segment in found if segment.marker == marker]
    if len(named) != 1:
        raise StreamError(f"it has {len(named)} marker segments {name}, expected one")
    return named[0]


def check_size(stated: tuple[int, int], shape: tuple[int, int]) -> None:
    """Raise StreamError unless the (rows, columns) of a stream equal those of the DICOM header.

    Call it before decoding, because a damaged stream of a few bytes may state any size.
    """
    if stated != shape:
        raise StreamError(
            f"its header states {stated[0]} rows and {stated[1]} columns, the DICOM header {shape[0]} and {shape[1]}"
        )


def _marker(stream: bytes, at: int) -> tuple[int, int]:
    """Second byte of the marker at `at`, and the position after it."""
    lead = at
    while stream[at : at + 1] == b"\xff":
        at += 1
    if at == lead or at == len(stream):
        raise StreamError(f"a marker is missing at byte {lead}")
    return stream[at], at + 1


def _length(stream: bytes, marker: int, at: int) -> int:
    """Length in bytes of a segment after its marker."""
    length = int.from_bytes(stream[at : at + 2])
    if length < 2 or at + length > len(stream):
        raise StreamError(f"the segment of marker FF {marker:02X} at byte {at} is longer than the rest of the stream")
    return length

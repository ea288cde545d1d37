"""JPEG Lossless (ITU-T T.81, process 14): decoded by libjpeg-turbo, and verified against the stream.

libjpeg-turbo fills in missing data of a damaged stream and only issues a warning, which imagecodecs drops.
`check_interval` detects every such case: predictor and Huffman table determine the encoding completely (H.1.2), so the
bits of the stream are compared with the encoding of the decoded pixels. Decoding releases the GIL.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from glam_deploy.dicom.transfer_syntaxes.segments import (
    EOI,
    SOS,
    Segment,
    StreamError,
    StreamInfo,
    check_size,
    only,
    parameters,
    segments,
)
from glam_deploy.records import Pixels

_ROWS_AT_ONCE = 32
"""Rows compared at once; their intermediate arrays fit into the cache of a processor."""


_SOF3, _DHT, _DQT, _DRI, _COM = 0xC3, 0xC4, 0xDB, 0xDD, 0xFE
_IGNORED = frozenset({_DQT, _COM, *range(0xE0, 0xF0)})
"""Tables of other processes, comments and application data (T.81 B.2.4)."""
_MAX_TABLES = 1 << 16
"""Largest size of all Huffman tables in bytes; four tables with all categories have 136 (T.81 B.2.4.2)."""
_MARKER = re.compile(rb"(?<!\xff)\xff+([\x01-\xfe])")  # from the first FF on, so that a run of them is read once
"""A marker after entropy-coded data with its fill bytes; FF 00 is a data byte FF (T.81 B.1.1.5)."""


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Code of every difference modulo 2^16, 0 to 65535: Huffman code and additional bits."""

    lengths: NDArray[np.uint8]
    """uint8 [65536]: 1 to 31 bits, 0 if the Huffman table has no code for the category of the difference."""
    bits: NDArray[np.uint32]
    """uint32 [65536]: Huffman code and additional bits, in the lowest `lengths` bits."""


def codes(table: Mapping[int, tuple[int, int]]) -> Codes:
    """Codes of all differences with a Huffman table: category SSSS, 0 to 16 -> (code, length in bits)."""
    category, additional = _categories()
    extra = np.where(category < 16, category, 0)
    lengths, bits = np.zeros(17, np.uint8), np.zeros(17, np.uint32)
    for ssss, (code, length) in table.items():
        lengths[ssss], bits[ssss] = length, code
    total = np.where(lengths[category] > 0, lengths[category] + extra, 0)
    return Codes(lengths=total.astype(np.uint8), bits=(bits[category] << extra.astype(np.uint32)) | additional)


@cache
def _categories() -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """SSSS and the additional bits of each difference modulo 2^16 (T.81 table H.2; F.1.2.1.1 for the bits)."""
    difference = np.arange(1 << 16)
    difference[difference > 1 << 15] -= 1 << 16
    # frexp: the exponent of 0 is 0, of 2^(n-1) to 2^n - 1 it is n
    category = np.frexp(np.abs(difference))[1]
    additional = np.where(difference < 0, difference - 1, difference) & (
        (1 << np.where(category < 16, category, 0)) - 1
    )
    return category.astype(np.uint8), additional.astype(np.uint32)


def differences(samples: Pixels, predictor: int, precision: int) -> NDArray[np.uint16]:
    """Differences that encode a restart interval: sample minus prediction, modulo 2^16 (T.81 H.1.1, H.1.2.1).

    `samples`: uint16 [rows, columns] of `precision` bits; `predictor`: 1 to 7 (table H.1). Returns uint16 [rows,
    columns].
    """
    found = np.empty(samples.shape, np.uint16)
    found[0, 0] = (int(samples[0, 0]) - (1 << (precision - 1))) & 0xFFFF
    found[0, 1:] = samples[0, 1:] - samples[0, :-1]
    found[1:, 0] = samples[1:, 0] - samples[:-1, 0]
    found[1:, 1:] = samples[1:, 1:] - _predictions(samples, predictor)
    return found


def _predictions(samples: Pixels, predictor: int) -> NDArray[np.uint16]:
    """Predictions of all samples except the first row and column (T.81 table H.1)."""
    # predictors with a division by 2 need the carry and the sign
    wide = samples.astype(np.int32) if predictor >= 5 else samples
    left, above, corner = wide[1:, :-1], wide[:-1, 1:], wide[:-1, :-1]
    predicted: dict[int, Callable[[], Pixels]] = {
        1: lambda: left,
        2: lambda: above,
        3: lambda: corner,
        4: lambda: left + above - corner,
        5: lambda: left + ((above - corner) >> 1),
        6: lambda: above + ((left - corner) >> 1),
        7: lambda: (left + above) >> 1,
    }
    return np.asarray(predicted[predictor]()).astype(np.uint16, copy=False)


def check_interval(data: bytes, samples: Pixels, table: Codes, predictor: int, precision: int) -> None:
    """Raise StreamError unless `data` is exactly the encoding of `samples`.

    `data`: an entropy-coded segment without its byte stuffing (T.81 B.1.1.5). `samples`: uint16 [rows, columns], a
    restart interval. Up to 7 bits of padding may follow the last code (F.1.2.3).

    Above 8 bits, every eighth code and the number of bits between them are compared: a decoder that continued after an
    invalid code consumed another number of bits than the code of its output has, so all later codes are displaced. Up
    to 8 bits, a decoder may also have truncated an overflow, so every code is compared.
    """
    windows, at = _windows(data), 0
    every = 8 if precision > 8 else 1
    for top in range(0, len(samples), _ROWS_AT_ONCE):
        # the prediction needs the row above
        first = max(top - 1, 0)
        rows = differences(samples[first : top + _ROWS_AT_ONCE], predictor, precision)[top - first :]
        at = _check_codes(windows, at, rows.ravel(), table, every)
    if 8 * len(data) - at >= 8:
        raise StreamError(f"its data have {8 * len(data) - at} bits after the last pixel")


def _check_codes(windows: Pixels, at: int, found: NDArray[np.uint16], table: Codes, every: int) -> int:
    """Compare the codes of the differences `found`, one in `every` (up to 8), with the bits from position `at` on.

    Returns the position after the last code. Raises StreamError.
    """
    lengths = np.zeros(-(-len(found) // every) * every, np.uint8)
    lengths[: len(found)] = table.lengths[found]
    if not lengths[: len(found)].all():
        raise StreamError("its data end before the last pixel, or have an invalid code")
    # eight lengths of up to 31 bits fit uint8
    ends = at + np.cumsum(sum(lengths[i::every] for i in range(every)), dtype=np.int64)
    if int(ends[-1]) > 8 * (len(windows) - 1):
        raise StreamError("its data end before the last pixel")
    starts = np.concatenate(([at], ends[:-1]))
    # a code of up to 31 bits is within the 8 bytes that start at the byte of its first bit
    words = windows[starts >> 3].astype(np.uint64) << (starts & 7).astype(np.uint64)
    if ((words >> (64 - lengths[::every]).astype(np.uint64)) != table.bits[found[::every]]).any():
        raise StreamError("its data have an invalid code")
    return int(ends[-1])


def _windows(data: bytes) -> Pixels:
    """8 bytes from each byte on, and from the end, as big-endian numbers padded with zeros: >u8 [bytes + 1]."""
    return np.ndarray((len(data) + 1,), ">u8", data + bytes(8), strides=(1,))


@dataclass(frozen=True, kw_only=True)
class _Image:
    """Parts of a stream of one component in one scan."""

    head: bytes
    """Frame header, scan header and tables, for the decoder."""
    precision: int
    predictor: int
    table: Mapping[int, tuple[int, int]]
    """Category SSSS -> (Huffman code, its length in bits)."""
    interval_rows: int
    """Rows of a restart interval; all rows if none is defined."""
    intervals: Sequence[bytes]
    """Entropy-coded segments, as stored."""


def decode(stream: bytes, shape: tuple[int, int]) -> Pixels:
    """Decode a lossless stream of `shape` (rows, columns) with one component, 2 to 16 bits.

    Returns uint8 (up to 8 bits) or uint16 [rows, columns]. Raises StreamError if the stream is not one undamaged image
    of that shape: every marker segment must conform to T.81 Annex B, and every entropy-coded bit must belong to a
    pixel.
    """
    import imagecodecs

    image = _parse(stream, shape)
    joined = b"".join(part + bytes([0xFF, 0xD0 + i % 8]) for i, part in enumerate(image.intervals))
    try:
        pixels = imagecodecs.jpeg8_decode(b"\xff\xd8" + image.head + joined[:-2] + b"\xff\xd9")
    except imagecodecs.Jpeg8Error as error:
        raise StreamError(f"libjpeg-turbo refuses it ({error})") from None
    _verify(image, pixels.astype(np.uint16, copy=False))
    return np.asarray(pixels)


def read_info(stream: bytes) -> StreamInfo:
    """Properties that the frame header states. Raises StreamError."""
    return StreamInfo(precision=parameters("B", only(list(segments(stream)), _SOF3, "SOF3"))[0])


def _verify(image: _Image, pixels: Pixels) -> None:
    table = codes(image.table)
    for i, part in enumerate(image.intervals):
        rows = pixels[i * image.interval_rows : (i + 1) * image.interval_rows]
        check_interval(part.replace(b"\xff\0", b"\xff"), rows, table, image.predictor, image.precision)


def _parse(stream: bytes, shape: tuple[int, int]) -> _Image:
    found = list(segments(stream))
    if sum(len(segment.body) for segment in found if segment.marker == _DHT) > _MAX_TABLES:
        raise StreamError(f"its Huffman tables have more than {_MAX_TABLES} bytes")
    for segment in found:
        if segment.marker not in (_SOF3, _DHT, _DRI, SOS, *_IGNORED):
            raise StreamError(f"it has the marker FF {segment.marker:02X}, which is not allowed in JPEG Lossless")
    frame, scan = only(found, _SOF3, "SOF3"), only(found, SOS, "SOS")
    precision = _check_frame(frame, shape)
    predictor, table_index = _check_scan(scan, frame)
    tables = {index: table for segment in found if segment.marker == _DHT for index, table in _tables(segment.body)}
    if table_index not in tables:
        raise StreamError(f"its Huffman table {table_index} is missing")
    rows, columns = shape
    # a pixel has at least one bit; without this check a short stream could make the decoder allocate a large image
    if 8 * (len(stream) - scan.end) < rows * columns:
        raise StreamError("its data end before the last pixel")
    interval_rows = _interval_rows(found, columns) or rows
    return _Image(
        head=b"".join(_bytes(segment) for segment in found if segment.marker not in _IGNORED),
        precision=precision,
        predictor=predictor,
        table=tables[table_index],
        interval_rows=interval_rows,
        intervals=_intervals(stream, scan.end, -(-rows // interval_rows)),
    )


def _bytes(segment: Segment) -> bytes:
    return bytes([0xFF, segment.marker]) + (2 + len(segment.body)).to_bytes(2) + segment.body


def _check_frame(frame: Segment, shape: tuple[int, int]) -> int:
    """The precision in bits that a frame header states (T.81 B.2.2)."""
    precision, rows, columns, components = parameters("BHHB", frame)
    check_size((rows, columns), shape)
    if components != 1 or len(frame.body) != 9:
        raise StreamError(f"its frame header states {components} components, expected one")
    if not 2 <= precision <= 16:
        raise StreamError(f"its frame header states {precision} bits, expected 2 to 16")
    return precision


def _check_scan(scan: Segment, frame: Segment) -> tuple[int, int]:
    """Predictor and index of the Huffman table that a scan header states (T.81 B.2.3, table B.3)."""
    components, component, table, predictor, end, shift = parameters("6B", scan)
    if components != 1 or len(scan.body) != 6 or component != frame.body[6]:
        raise StreamError("its scan header does not refer to the only component of its frame")
    if not 1 <= predictor <= 7 or table & 0xCF or end:
        raise StreamError("its scan header is not that of a lossless scan")
    if shift:
        raise StreamError(f"its point transform has removed the lowest {shift} bits: request the original image")
    return predictor, table >> 4


def _tables(body: bytes) -> list[tuple[int, Mapping[int, tuple[int, int]]]]:
    """(index, category -> code and length) of each Huffman table in a DHT segment (T.81 B.2.4.2, Annex C)."""
    tables = []
    while body:
        counts, categories = body[1:17], body[17 : 17 + sum(body[1:17])]
        # differences of up to 16 bits: categories 0 to 16 (table H.2)
        if len(counts) < 16 or len(categories) < sum(counts) or max(categories, default=17) > 16:
            raise StreamError("a Huffman table is damaged")
        tables.append((body[0], _codes(counts, categories)))
        body = body[17 + len(categories) :]
    return tables


def _codes(counts: bytes, categories: bytes) -> Mapping[int, tuple[int, int]]:
    code, codes, left = 0, {}, iter(categories)
    for length, count in enumerate(counts, 1):
        for category in islice(left, count):
            codes[category] = code, length
            code += 1
        code <<= 1
    return codes


def _interval_rows(found: Sequence[Segment], columns: int) -> int:
    """Rows of a restart interval, 0 for none (T.81 B.2.4.4); a lossless interval has complete rows (table B.7)."""
    samples = [parameters("H", segment)[0] for segment in found if segment.marker == _DRI]
    if samples and samples[-1] % columns:
        raise StreamError(f"its restart interval is {samples[-1]} samples, expected a multiple of {columns}")
    return samples[-1] // columns if samples else 0


def _intervals(stream: bytes, start: int, count: int) -> list[bytes]:
    """The entropy-coded segments from `start` on, separated by RST0 to RST7 in turn (T.81 B.2.1)."""
    parts = []
    while True:
        marker = _MARKER.search(stream, start)
        if marker is None:
            raise StreamError("it ends without EOI (FF D9)")
        parts.append(stream[start : marker.start()])
        start = marker.end()
        if marker[1][0] == EOI:
            break
        if len(parts) == count or marker[1][0] != 0xD0 + (len(parts) - 1) % 8:
            raise StreamError(f"its data are interrupted by the marker FF {marker[1][0]:02X} at byte {marker.start()}")
    if len(parts) != count:
        raise StreamError(f"it has {len(parts)} restart intervals, expected {count}")
    # an encapsulated frame may be padded after EOI (PS3.5 A.4)
    if stream[start:].strip(b"\0"):
        raise StreamError("data other than padding follow EOI (FF D9)")
    return parts

"""What a PNG or TIFF file states about itself, checked before a decoder sees it.

A decoder acts on some statements, passes over others, and takes memory for the size that is stated, without a word.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from glam_deploy.errors import InputError
from glam_deploy.records import MAX_PIXELS

REMEDY = "export the original mammogram as 16-bit grey PNG or TIFF"

_PNG = b"\x89PNG\r\n\x1a\n"
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 259, 262, 274
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _FORMAT = 273, 277, 278, 279, 339
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _PLANAR = 322, 323, 324, 325, 284
_INTEGERS = {1: "B", 3: "H", 4: "I"}
"""TIFF field types BYTE, SHORT and LONG (TIFF 6.0, section 2)."""
_MOST_VALUES = 1_000_000
"""Strips or tiles of an image that is read: many times those of a mammogram with a strip for each row."""
_NONE, _DEFLATE = 1, (8, 32946)


def check_size(rows: int, columns: int, samples: int = 1) -> None:
    """Raise InputError unless an image of so many rows, columns and samples a pixel may be read."""
    if rows < 1 or columns < 1 or rows * columns * samples > MAX_PIXELS:
        stated = f"{rows} x {columns} pixels" + (f" of {samples} samples" if samples != 1 else "")
        raise InputError(f"the image has {stated}, expected 1 to {MAX_PIXELS} pixels: {REMEDY}")


def sound_png(content: bytes) -> tuple[bytes, tuple[int, int]]:
    """A PNG with nothing but the pixels of `content`, which must be whole, and their (rows, columns).

    OpenCV would widen 1, 2 and 4 bits, look colours up and pass over tRNS without a word (PNG, 11.2.1, 11.3.1). Every
    chunk must have its checksum, and the file end with IEND (5.3, 11.2.4). Raises InputError.
    """
    chunks = list(_png_chunks(content))
    names = [name for name, _ in chunks]
    if names[:1] != [b"IHDR"] or len(chunks[0][1]) != 25:
        raise InputError(f"the png is incomplete ({len(content)} bytes) or damaged: {REMEDY}")
    columns, rows, bits, colour = struct.unpack(">IIBB", chunks[0][1][8:18])
    check_size(rows, columns, {2: 3, 4: 2, 6: 4}.get(colour, 1))
    if bits not in (8, 16) or colour == 3:
        told = "indexes of a palette" if colour == 3 else f"{bits} bits deep"
        raise InputError(f"the png's pixels are {told}, expected 8- or 16-bit grey: {REMEDY}")
    if b"tRNS" in names:
        raise InputError(f"the png declares a transparent colour (tRNS), expected no transparency: {REMEDY}")
    if b"acTL" in names:
        raise InputError(f"the png is animated (acTL), expected one image: {REMEDY}")
    if names[-1] != b"IEND" or names.count(b"IHDR") != 1:
        raise InputError(f"the png is incomplete ({len(content)} bytes) or damaged: {REMEDY}")
    pixels = b"".join(chunk for name, chunk in chunks if name in (b"IHDR", b"IDAT", b"IEND"))
    return _PNG + pixels, (rows, columns)


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and all bytes of each chunk, up to IEND or where the file is damaged (PNG, 5.3)."""
    at, name = len(_PNG), b""
    while at + 12 <= len(content) and name != b"IEND":
        length, name = struct.unpack_from(">I4s", content, at)
        chunk = content[at : at + 12 + length]
        if len(chunk) < 12 + length or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            return
        yield name, chunk
        at += len(chunk)


@dataclass(frozen=True, kw_only=True)
class _Page:
    """A TIFF image file directory."""

    tags: dict[int, tuple[int, ...]]
    """Tag -> values, of integer fields."""
    has_next: bool

    def first(self, tag: int, default: int) -> int:
        return self.tags.get(tag, (default,))[0]


def check_tiff(content: bytes) -> tuple[int, int]:
    """(rows, columns) of a TIFF of one grey or RGB page whose strips or tiles are all there. Raises InputError."""
    page = _tiff_page(content)
    rows, columns, samples = page.first(_LENGTH, 0), page.first(_WIDTH, 0), page.first(_SAMPLES, 1)
    check_size(rows, columns, samples)
    depth = page.first(_BITS, 1), page.first(_FORMAT, 1)
    if page.has_next:
        raise InputError(f"the tiff has several pages, expected one: {REMEDY}")
    if (photometric := page.first(_PHOTOMETRIC, -1)) not in (1, 2):
        stated = "missing" if photometric < 0 else photometric
        raise InputError(f"the tiff's PhotometricInterpretation is {stated}, expected 1 (0 is black): {REMEDY}")
    if (orientation := page.first(_ORIENTATION, 1)) != 1:
        raise InputError(f"the tiff's Orientation is {orientation}, expected 1 (first row on top): {REMEDY}")
    if depth not in ((8, 1), (16, 1), (32, 3)):
        raise InputError(
            f"the tiff has {depth[0]} bits of sample format {depth[1]}, expected 8 or 16 of format 1 (unsigned) or 32 "
            f"of 3 (float): {REMEDY}"
        )
    _check_parts(content, page, (rows, columns, samples), depth[0] // 8)
    return rows, columns


def _check_parts(content: bytes, page: _Page, size: tuple[int, int, int], sample: int) -> None:
    """Strips or tiles must be as many as the image has, lie within the file, and be whole where that shows."""
    rows, columns, samples = size
    tiled = _TILE_OFFSETS in page.tags
    height = page.first(_TILE_LENGTH, 0) if tiled else min(page.first(_ROWS_PER_STRIP, rows), rows)
    width = page.first(_TILE_WIDTH, 0) if tiled else columns
    check_size(height, width, samples)
    planes = samples if page.first(_PLANAR, 1) == 2 else 1
    down, across = -(-rows // height), -(-columns // width)
    check_size(down * height, across * width, samples)  # tiles reach beyond the image
    offsets = page.tags.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())
    counts = page.tags.get(_TILE_COUNTS if tiled else _STRIP_COUNTS, ())
    if not len(offsets) == len(counts) == planes * down * across:
        raise InputError(
            f"the tiff has {len(offsets)} strips or tiles, expected {planes * down * across} for its size: {REMEDY}"
        )
    for i, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        # the last strip holds the rows that are left, a tile always its own
        high = height if tiled or i % down < down - 1 else rows - (down - 1) * height
        if not _is_whole(content, (offset, count), page, high * width * sample * samples // planes):
            raise InputError(f"the tiff is damaged or incomplete (a strip or tile is not whole): {REMEDY}")


def _is_whole(content: bytes, place: tuple[int, int], page: _Page, length: int) -> bool:
    """Whether a strip or tile at (offset, bytes) is there and holds `length` bytes, where its compression tells."""
    offset, count = place
    if offset + count > len(content):
        return False
    compression = page.first(_COMPRESSION, _NONE)
    if compression in _DEFLATE:
        return _inflates(memoryview(content)[offset : offset + count], length)
    return compression != _NONE or count == length


def _inflates(packed: memoryview, length: int) -> bool:
    """Whether a zlib stream is whole, with its checksum, and holds `length` bytes; it takes memory for 64 kB."""
    inflater, found = zlib.decompressobj(), 0
    try:
        while not inflater.eof and found <= length and packed:
            found += len(inflater.decompress(packed, 1 << 16))
            packed = memoryview(inflater.unconsumed_tail)
        return inflater.eof and found == length
    except zlib.error:
        return False


def _tiff_page(content: bytes) -> _Page:
    order = "<" if content[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", content, 4)
        (count,) = struct.unpack_from(order + "H", content, start)
        entries = [_tiff_entry(content, order, start + 2 + 12 * i) for i in range(count)]
        (following,) = struct.unpack_from(order + "I", content, start + 2 + 12 * count)
    except struct.error as error:
        raise InputError(f"the tiff is damaged or incomplete: {REMEDY}") from error
    tags = dict(entries)
    if len(tags) != len(entries):
        raise InputError(f"the tiff states a tag twice, expected every tag once: {REMEDY}")
    return _Page(tags={tag: values for tag, values in tags.items() if values}, has_next=following != 0)


def _tiff_entry(content: bytes, order: str, at: int) -> tuple[int, tuple[int, ...]]:
    """A tag, and its values if it is a field of integers that matters here."""
    tag, kind, count, far = struct.unpack_from(order + "HHII", content, at)
    if tag not in _READ:
        return tag, ()
    letter = _INTEGERS.get(kind)
    if letter is None or not count:
        raise InputError(f"the tiff's tag {tag} is of type {kind}, expected 3 (SHORT) or 4 (LONG): {REMEDY}")
    if count > _MOST_VALUES:
        raise InputError(f"the tiff's tag {tag} has {count} values, expected up to {_MOST_VALUES}: {REMEDY}")
    # values that do not fit in four bytes stand elsewhere
    place = at + 8 if count * struct.calcsize(letter) <= 4 else far
    if place + count * struct.calcsize(letter) > len(content):
        raise InputError(f"the tiff is damaged or incomplete: {REMEDY}")
    return tag, struct.unpack_from(f"{order}{count}{letter}", content, place)


_READ = frozenset(
    chain(
        (_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP),
        (_STRIP_COUNTS, _FORMAT, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _PLANAR),
    )
)

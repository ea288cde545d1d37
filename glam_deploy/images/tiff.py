"""Structure of a TIFF file (TIFF 6.0), checked before decoding.

libtiff applies tags that are irrelevant here and warns of unknown tags, and OpenCV reduces layouts that it does not
support to 8 bits. Therefore the decoder receives only the tags that were checked.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from glam_deploy.errors import InputError
from glam_deploy.images.structure import REMEDY, check_size, inflation_fault
from glam_deploy.records import Pixels

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 259, 262, 274
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _FORMAT = 273, 277, 278, 279, 339
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _PLANAR = 322, 323, 324, 325, 284
_FILL_ORDER, _PREDICTOR, _EXTRA, _JPEG_TABLES = 266, 317, 338, 347
_READ = frozenset(
    {
        *(_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP),
        *(_STRIP_COUNTS, _FORMAT, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _PLANAR),
        *(_FILL_ORDER, _PREDICTOR, _EXTRA),
    }
)
_INTEGERS = {1: "B", 3: "H", 4: "I"}
"""TIFF field types BYTE, SHORT and LONG (TIFF 6.0, section 2)."""
MOST_VALUES = 100_000
"""Largest number of strips or tiles: many times those of a mammogram with one strip per row."""

_NONE, _LZW, _JPEG, _DEFLATE, _PACK_BITS = 1, 5, 7, (8, 32946), 32773
_COMPRESSIONS = MappingProxyType(
    {_NONE: "none", _LZW: "LZW", _JPEG: "JPEG", 8: "deflate", 32946: "deflate", _PACK_BITS: "PackBits"}
)
"""Supported compressions."""
_OTHER_COMPRESSIONS = MappingProxyType(
    {2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "old-style JPEG", 34712: "JPEG 2000", 33003: "JPEG 2000"}
    | {33005: "JPEG 2000", 34676: "SGI LogL", 34677: "SGI LogL", 34887: "LERC", 34925: "LZMA", 50000: "ZSTD"}
    | {50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL", 32909: "Pixar Log", 34661: "JBIG"}
)
_AS_GREY = "convert it with `gm convert in.tif -type Grayscale out.png` of GraphicsMagick, or export it as grey"
_OTHER_MEANINGS: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        0: ("MinIsWhite, 0 is white", _AS_GREY),
        3: ("palette", f"if all colours of the palette are grey, {_AS_GREY}"),
        4: ("transparency mask", REMEDY),
        5: ("separated, CMYK", REMEDY),
        6: ("YCbCr", f"if the image has no colour, {_AS_GREY}"),
        8: ("CIE L*a*b*", REMEDY),
    }
)
"""Unsupported PhotometricInterpretation -> its name, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class SoundTiff:
    """A checked TIFF of one image, and the shape and type of its decoded pixels."""

    content: bytes
    """The file with one directory of the checked tags."""
    shape: tuple[int, int]
    """Rows and columns."""
    dtype: np.dtype[np.generic]
    samples: int
    """Samples per pixel."""
    lossy: str
    """Kind of lossy compression; "" if lossless."""

    def pixels(self, decoded: Pixels) -> Pixels:
        """Samples of the decoded image: [rows, columns], or [rows, columns, samples] for several samples per pixel.

        Raises InputError if the shape or type of `decoded` is not as stated.
        """
        rows, columns = self.shape
        pixels = (
            decoded.reshape(rows, columns, 2) if self.samples == 2 and decoded.size == 2 * rows * columns else decoded
        )
        expected = (rows, columns) if self.samples == 1 else (rows, columns, self.samples)
        if pixels.shape != expected or pixels.dtype != self.dtype:
            raise InputError(
                f"the tiff states {list(expected)} of {self.dtype}, the decoder returned {list(pixels.shape)} of "
                f"{pixels.dtype}: {REMEDY}"
            )
        return pixels


@dataclass(frozen=True, kw_only=True)
class _Page:
    """A TIFF image file directory."""

    tags: Mapping[int, tuple[int, ...]]
    """Tag -> values of integer fields."""
    fields: Mapping[int, bytes]
    """Tag -> entry of 12 bytes, as stored."""
    order: str
    """Byte order, "<" or ">"."""
    has_next: bool
    """Whether another directory follows."""
    places: tuple[range, ...]
    """Byte ranges of the header, the directory and the values of its fields, which must not hold pixels."""

    def first(self, tag: int, default: int) -> int:
        return self.tags.get(tag, (default,))[0]


def sound_tiff(content: bytes) -> SoundTiff:
    """Check a TIFF: one grey or RGB page, with or without alpha, and all strips or tiles. Raises InputError."""
    page = _page(content)
    rows, columns, samples = page.first(_LENGTH, 0), page.first(_WIDTH, 0), page.first(_SAMPLES, 1)
    check_size(rows, columns, samples)
    _check_meaning(page)
    depth = _depth(page)
    _check_samples(page, samples, depth)
    _check_parts(content, page, (rows, columns, samples), depth // 8)
    lossy = "TIFF compression 7, JPEG" if page.first(_COMPRESSION, _NONE) == _JPEG else ""
    return SoundTiff(
        content=_rewritten(content, _as_one_sample(page) if samples == 2 else page),
        shape=(rows, columns),
        dtype=np.dtype(np.float32 if depth == 32 else f"u{depth // 8}"),
        samples=samples,
        lossy=lossy,
    )


def _check_meaning(page: _Page) -> None:
    if page.has_next:
        raise InputError(f"the tiff has several pages, expected one: {REMEDY}")
    if (photometric := page.first(_PHOTOMETRIC, -1)) not in (1, 2):
        name, remedy = _OTHER_MEANINGS.get(photometric, ("unknown", REMEDY))
        stated = "missing" if photometric < 0 else f"{photometric} ({name})"
        raise InputError(f"the tiff's PhotometricInterpretation is {stated}, expected 1 (MinIsBlack): {remedy}")
    if (orientation := page.first(_ORIENTATION, 1)) != 1:
        raise InputError(f"the tiff's Orientation is {orientation}, expected 1 (first row on top): {REMEDY}")
    if (compression := page.first(_COMPRESSION, _NONE)) not in _COMPRESSIONS:
        name = _OTHER_COMPRESSIONS.get(compression, "unknown")
        read = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise InputError(f"the tiff's Compression is {compression} ({name}), expected one of {read}: {REMEDY}")
    if compression == _PACK_BITS and (predictor := page.first(_PREDICTOR, 1)) != 1:
        raise InputError(
            f"the tiff states Predictor {predictor} with PackBits, but predictors are defined for LZW and deflate "
            "only: write it again without predictor (tifffile: predictor=False)"
        )


def _depth(page: _Page) -> int:
    """Bits per sample, equal for all samples of a pixel. Raises InputError."""
    depths = {(bits, form) for bits in page.tags.get(_BITS, (1,)) for form in page.tags.get(_FORMAT, (1,))}
    depth = min(depths)
    if len(depths) > 1 or depth not in ((8, 1), (16, 1), (32, 3)):
        raise InputError(
            f"the tiff has {depth[0]} bits of sample format {depth[1]}, expected 8 or 16 of format 1 (unsigned) or 32 "
            f"of format 3 (float){', equal in all samples' * (len(depths) > 1)}: {REMEDY}"
        )
    return depth[0]


def _check_samples(page: _Page, samples: int, depth: int) -> None:
    """Raise InputError unless pixels are grey or RGB, with or without alpha, in a layout that OpenCV keeps."""
    extra, grey = page.tags.get(_EXTRA, ()), page.first(_PHOTOMETRIC, 1) == 1
    if samples - len(extra) != (1 if grey else 3) or len(extra) > 1:
        raise InputError(
            f"the tiff has {samples} samples per pixel, {len(extra)} of them extra (ExtraSamples), with "
            f"PhotometricInterpretation {1 if grey else 2}, expected one grey sample: {REMEDY}"
        )
    if extra and extra[0] not in (1, 2):
        raise InputError(
            f"the tiff has a second sample per pixel without stated meaning (ExtraSamples {extra[0]}), expected one "
            f"grey sample: {REMEDY}"
        )
    if extra and depth == 32:
        raise InputError(f"the tiff has floats with an alpha channel, expected one grey sample per pixel: {REMEDY}")
    apart = samples > 1 and page.first(_PLANAR, 1) == 2
    if (apart and (depth > 8 or samples == 2)) or (samples == 2 and not _is_plain(page)):
        raise InputError(
            f"the tiff has {samples} samples of {depth} bits per pixel, in a layout that cannot be decoded without a "
            f"change (PlanarConfiguration {page.first(_PLANAR, 1)}, Predictor {page.first(_PREDICTOR, 1)}), expected "
            f"one grey sample: {REMEDY}"
        )


def _is_plain(page: _Page) -> bool:
    """Whether the samples of a row are stored in sequence, so that two samples can be read as two pixels."""
    return page.first(_PREDICTOR, 1) == 1 and page.first(_COMPRESSION, _NONE) != _JPEG


def _as_one_sample(page: _Page) -> _Page:
    """The page with twice the columns instead of two samples per pixel, which OpenCV would reduce to 8 bits."""
    wide = {tag: 2 * page.first(tag, 0) for tag in (_WIDTH, _TILE_WIDTH) if tag in page.tags}
    fields = dict(page.fields)
    fields |= {tag: struct.pack(page.order + "HHII", tag, 4, 1, value) for tag, value in wide.items()}
    for tag, value in ((_BITS, page.first(_BITS, 1)), (_SAMPLES, 1), (_FORMAT, page.first(_FORMAT, 1))):
        fields[tag] = struct.pack(page.order + "HHIHH", tag, 3, 1, value, 0)
    del fields[_EXTRA]
    return replace(page, fields=fields)


def _rewritten(content: bytes, page: _Page) -> bytes:
    """The file with a new directory at its end that has only the fields of the page, in order."""
    at = len(content) + len(content) % 2
    entries = [page.fields[tag] for tag in sorted(page.fields)]
    directory = struct.pack(page.order + "H", len(entries)) + b"".join(entries) + bytes(4)
    start = struct.pack(page.order + "I", at)
    return b"".join((content[:4], start, memoryview(content)[8:], bytes(at - len(content)), directory))


def _check_parts(content: bytes, page: _Page, size: tuple[int, int, int], sample: int) -> None:
    """Check number, position and, for uncompressed and deflated data, length of strips or tiles. Raises InputError."""
    rows, columns, samples = size
    tiled = _TILE_OFFSETS in page.tags
    height = page.first(_TILE_LENGTH, 0) if tiled else min(page.first(_ROWS_PER_STRIP, rows), rows)
    width = page.first(_TILE_WIDTH, 0) if tiled else columns
    check_size(height, width, samples)
    if (tiled or _TILE_WIDTH in page.tags) and (not tiled or _STRIP_OFFSETS in page.tags):
        raise InputError(
            f"the tiff has tags of strips and of tiles, which programs read as different pixels, expected one kind: "
            f"{REMEDY}"
        )
    planes = samples if page.first(_PLANAR, 1) == 2 else 1
    down, across = -(-rows // height), -(-columns // width)
    check_size(down * height, across * width, samples)  # tiles reach beyond the image
    offsets = page.tags.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())
    counts = page.tags.get(_TILE_COUNTS if tiled else _STRIP_COUNTS, ())
    if not len(offsets) == len(counts) == planes * down * across:
        raise InputError(
            f"the tiff has {len(offsets)} strips or tiles, expected {planes * down * across} for its size: {REMEDY}"
        )
    if sum(counts) > len(content):
        raise InputError(
            f"the tiff is damaged: its strips or tiles state {sum(counts)} bytes, the file has {len(content)}, so they "
            f"are incomplete or overlap: {REMEDY}"
        )
    spans = sorted((offset, offset + count) for offset, count in zip(offsets, counts, strict=True))
    if any(start < end for (_, end), (start, _) in pairwise(spans)):
        raise InputError(f"the tiff is damaged: its strips or tiles overlap: {REMEDY}")
    part_error = _part_check(content, page)
    for i, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        # the last strip has the remaining rows; every tile has full size
        high = height if tiled or i % down < down - 1 else rows - (down - 1) * height
        if error := part_error(offset, count, high * width * sample * samples // planes):
            raise InputError(f"the tiff is damaged or incomplete (strip or tile {i}: {error}): {REMEDY}")


def _part_check(content: bytes, page: _Page) -> Callable[[int, int, int], str]:
    """A function (offset, bytes, decoded length) -> error of a strip or tile; "" for none."""
    whole, compression = memoryview(content), page.first(_COMPRESSION, _NONE)

    def part_error(offset: int, count: int, length: int) -> str:
        if offset + count > len(whole):
            return "it extends beyond the end of the file"
        if any(offset < place.stop and place.start < offset + count for place in page.places):
            return f"it begins at byte {offset} and overlaps the header or the directory"
        if compression in _DEFLATE:
            return inflation_fault([whole[offset : offset + count]], length, alone=False)
        if compression == _NONE and count != length:
            return f"it has {count} of {length} bytes"
        return ""

    return part_error


def _page(content: bytes) -> _Page:
    order = "<" if content[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", content, 4)
        (count,) = struct.unpack_from(order + "H", content, start)
        fields = [content[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
        (following,) = struct.unpack_from(order + "I", content, start + 2 + 12 * count)
    except struct.error as error:
        raise InputError(f"the tiff is damaged or incomplete: {REMEDY}") from error
    tags = [struct.unpack_from(order + "H", field)[0] for field in fields]
    if len(set(tags)) != len(tags):
        raise InputError(f"the tiff has a tag twice, expected every tag once: {REMEDY}")
    known = {tag: field for tag, field in zip(tags, fields, strict=True) if tag in (*_READ, _JPEG_TABLES)}
    values = {tag: _values(content, order, tag, field) for tag, field in known.items() if tag in _READ}
    places = (range(8), range(start, start + 2 + 12 * count + 4), *_far(order, (known[tag] for tag in values)))
    return _Page(tags=values, fields=known, order=order, has_next=following != 0, places=places)


def _far(order: str, fields: Iterable[bytes]) -> Iterator[range]:
    """Byte ranges of the values of integer fields that do not fit into the entry."""
    for field in fields:
        _, kind, count, at = struct.unpack(order + "HHII", field)
        if (length := count * struct.calcsize(_INTEGERS[kind])) > 4:
            yield range(at, at + length)


def _values(content: bytes, order: str, tag: int, field: bytes) -> tuple[int, ...]:
    """Values of an integer field. Raises InputError."""
    _, kind, count, far = struct.unpack(order + "HHII", field)
    letter = _INTEGERS.get(kind)
    if letter is None or not count:
        raise InputError(f"the tiff's tag {tag} is of type {kind}, expected 3 (SHORT) or 4 (LONG): {REMEDY}")
    if count > MOST_VALUES:
        raise InputError(f"the tiff's tag {tag} has {count} values, expected up to {MOST_VALUES}: {REMEDY}")
    # values that do not fit into four bytes are stored outside the entry
    near = count * struct.calcsize(letter) <= 4
    source, place = (field, 8) if near else (content, far)
    if place + count * struct.calcsize(letter) > len(source):
        raise InputError(f"the tiff is damaged or incomplete: {REMEDY}")
    return struct.unpack_from(f"{order}{count}{letter}", source, place)

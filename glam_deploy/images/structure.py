"""Structure of a PNG file, checked before decoding, and the size limit of all images.

A decoder applies some chunks, ignores others, and allocates memory for any stated size, without a warning.
"""

import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from glam_deploy.errors import InputError
from glam_deploy.records import MAX_PIXELS

REMEDY = "export the original mammogram as 16-bit grey PNG or TIFF"

MAX_CHUNKS = 100_000
"""Largest number of chunks in a PNG: 100 times those of a mammogram in pieces of 8 kB, as libpng writes them."""

_PNG, _IEND = b"\x89PNG\r\n\x1a\n", bytes.fromhex("0000000049454e44ae426082")
_LONGEST_EXIF = 1 << 16
"""Bytes of Exif data that are read, as many as a JPEG segment can have."""
_LONGEST_TEXT = 1 << 18
"""Bytes of a text that are read for an orientation."""
_EXIF_PROFILES = (b"Raw profile type exif", b"Raw profile type APP1")
_XMP = b"XML:com.adobe.xmp"
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\b""")
"""As an attribute or an element (XMP specification, part 1, section 7)."""
_STEP = 1 << 16
"""Largest number of bytes read, and inflated, in one step."""
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""Colour type -> samples per pixel (PNG, table 11.1)."""
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and steps of rows and columns, of each pass of an interlaced image (PNG, 8.2)."""


def check_size(rows: int, columns: int, samples: int = 1) -> None:
    """Raise InputError unless the image has 1 to `MAX_PIXELS` pixels, multiplied by the samples per pixel."""
    if rows < 1 or columns < 1 or rows * columns * samples > MAX_PIXELS:
        stated = f"{rows} x {columns} pixels" + (f" of {samples} samples" if samples != 1 else "")
        raise InputError(f"the image has {stated}, expected 1 to {MAX_PIXELS} pixels: {REMEDY}")


def inflation_fault(pieces: Iterable[memoryview], length: int, *, alone: bool = True) -> str:
    """Check a zlib stream that must inflate to `length` bytes; returns the error, "" for none.

    `alone`: no bytes may follow the stream in `pieces`. Needs 128 kB of memory, and time in proportion to the stream.
    """
    inflater, found, more = zlib.decompressobj(), 0, False
    try:
        for piece in pieces:
            for start in range(0, len(piece), _STEP):
                if inflater.eof:
                    more = True
                    break
                rest: bytes | memoryview = piece[start : start + _STEP]
                while rest and found <= length:
                    found += len(inflater.decompress(rest, _STEP))
                    rest = inflater.unconsumed_tail
                more |= bool(inflater.unused_data)
                if found > length:
                    return f"its pixels inflate to more than {length} bytes"
    except zlib.error as error:
        return f"its pixels cannot be inflated: {str(error).rpartition(': ')[2]}"
    if not inflater.eof or found != length:
        return f"its pixels have {found} of {length} bytes"
    return "other bytes follow its pixels" if alone and more else ""


@dataclass(frozen=True, kw_only=True)
class _Header:
    """IHDR (PNG, 11.2.1)."""

    rows: int
    columns: int
    bits: int
    colour: int
    interlaced: bool

    def length(self) -> int:
        """Length of the filtered pixels in bytes, with a filter byte before each row of each pass (PNG, 7.2)."""
        passes = _PASSES if self.interlaced else ((0, 0, 1, 1),)
        sizes = [(-((i - self.rows) // di), -((j - self.columns) // dj)) for i, j, di, dj in passes]
        wide = self.bits // 8 * _CHANNELS[self.colour]
        return sum(rows * (1 + columns * wide) for rows, columns in sizes if rows > 0 and columns > 0)


def sound_png(content: bytes) -> tuple[bytes, tuple[int, int, int]]:
    """Check a PNG; returns a PNG with only its header and pixels, and their (rows, columns, samples per pixel).

    OpenCV would expand 1, 2 and 4 bits, apply palettes and ignore tRNS without a warning (PNG, 11.2.1, 11.3.1). Every
    chunk must have a correct checksum, the file must end with IEND (5.3, 11.2.4), and the pixels must inflate to
    exactly the size of the image. Raises InputError.
    """
    chunks = _png_chunks(content)
    name, first = next(chunks, (b"", memoryview(b"")))
    if name != b"IHDR" or len(first) != 25:
        raise _damaged(content, "its first chunk is not a valid IHDR")
    header = _header(first)
    pixels = [chunk for name, chunk in _checked(chunks) if name == b"IDAT"]
    if error := inflation_fault((chunk[8:-4] for chunk in pixels), header.length()):
        raise _damaged(content, error)
    return b"".join((_PNG, first, *pixels, _IEND)), (header.rows, header.columns, _CHANNELS[header.colour])


def _header(chunk: memoryview) -> _Header:
    columns, rows, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", chunk[8:21])
    check_size(rows, columns, _CHANNELS.get(colour, 1))
    if bits not in (8, 16) or colour not in _CHANNELS:
        wrong_bits = bits not in (8, 16)
        kind = "palette indexes" if colour == 3 else f"{bits}-bit" if wrong_bits else f"of colour type {colour}"
        raise InputError(f"the pixels of the png are {kind}, expected 8- or 16-bit grey: {REMEDY}")
    return _Header(rows=rows, columns=columns, bits=bits, colour=colour, interlaced=interlace == 1)


def _checked(chunks: Iterator[tuple[bytes, memoryview]]) -> Iterator[tuple[bytes, memoryview]]:
    """The chunks after IHDR. Raises InputError for one that does not belong to one opaque image."""
    before, began = b"IHDR", False
    for name, chunk in chunks:
        if name == b"tRNS":
            raise InputError(f"the png declares a transparent colour (tRNS), expected no transparency: {REMEDY}")
        if name == b"acTL":
            raise InputError(f"the png is animated (acTL), expected one image: {REMEDY}")
        if (turned := _stated_orientation(name, bytes(chunk[8:-4]))) != 1:
            raise InputError(f"the png's Exif Orientation is {turned}, expected 1 (first row on top): {REMEDY}")
        # a name with an initial capital means a critical chunk: an unknown one must be refused (PNG, 5.4)
        misplaced = name == b"IHDR" or (name == b"IDAT" and began and before != b"IDAT")
        if misplaced or (name[:1].isupper() and name not in (b"IDAT", b"PLTE", b"IEND")):
            raise InputError(f"the png has an unexpected chunk {name!r}: {REMEDY}")
        began |= name == b"IDAT"
        before = name
        yield name, chunk


def _stated_orientation(name: bytes, content: bytes) -> int:
    """The Orientation in a chunk, as viewers find it: in eXIf, in the profile that ImageMagick writes as a text of
    hexadecimal digits, or in XMP; else 1.
    """
    if name == b"eXIf":
        return _orientation(content)
    keyword, _, text = content.partition(b"\0")
    if keyword in _EXIF_PROFILES and name in (b"tEXt", b"zTXt"):
        digits = b"".join((_inflated(text[1:]) if name == b"zTXt" else text[:_LONGEST_TEXT]).split()[2:])
        with suppress(ValueError):
            return _orientation(bytes.fromhex(digits.decode("latin-1")))
    if keyword == _XMP and name == b"iTXt":
        packed, content = text[:1] == b"\1", text[2:].partition(b"\0")[2].partition(b"\0")[2]
        found = _XMP_ORIENTATION.search(_inflated(content) if packed else content[:_LONGEST_TEXT])
        return int(found[1]) if found else 1
    return 1


def _inflated(content: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(content, _LONGEST_TEXT)
    except zlib.error:
        return b""


def _orientation(exif: bytes) -> int:
    """Orientation tag of Exif data, which only some viewers apply; 1 if it is missing or cannot be read."""
    from PIL.Image import Exif

    found = Exif()
    with warnings.catch_warnings(action="ignore"):
        try:
            found.load(exif[:_LONGEST_EXIF])
            return int(found.get(0x0112, 1))
        except Exception:  # of any type, because Exif data only add information
            return 1


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Type and all bytes of each chunk up to IEND, after which no bytes may follow (PNG, 5.3, 5.6)."""
    whole, at, name = memoryview(content), len(_PNG), b""
    for _ in range(MAX_CHUNKS):
        if name == b"IEND":
            if at < len(content):
                raise InputError(f"the png has {len(content) - at} bytes after its end (IEND): {REMEDY}")
            return
        chunk = whole[at : at + 12 + int.from_bytes(whole[at : at + 4])]
        if len(chunk) < 12 or len(chunk) < 12 + int.from_bytes(chunk[:4]):
            raise _damaged(content, f"the chunk at byte {at} is incomplete")
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            raise _damaged(content, f"the chunk at byte {at} has a wrong checksum")
        name, at = bytes(chunk[4:8]), at + len(chunk)
        if name == b"IEND" and chunk != _IEND:
            raise _damaged(content, "its end (IEND) is not empty")
        yield name, chunk
    raise InputError(f"the png has more than {MAX_CHUNKS} chunks, too many for one mammogram: {REMEDY}")


def _damaged(content: bytes, reason: str) -> InputError:
    return InputError(f"the png is damaged or incomplete ({len(content)} bytes; {reason}): {REMEDY}")

"""Structure of a JPEG 2000 codestream (ITU-T T.800 Annexes A and B), checked before decoding.

The checks bound the memory that a decoder allocates, and require all tiles and tile-parts, up to EOC. Missing packets
of a tile are detected only by decoding (`glam_deploy.dicom.transfer_syntaxes.jpeg2000`).
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glam_deploy.dicom.transfer_syntaxes.segments import MAX_SEGMENTS, Segment, StreamError, check_size, only

FILE = b"\0\0\0\x0cjP  \r\n\x87\n"
"""First bytes of a JP2 file: the signature box (T.800 I.5.1)."""
_START = b"\xff\x4f\xff\x51"
"""First bytes of a codestream: SOC and SIZ (T.800 A.4.1, A.5.1)."""
COD, QCD = 0x52, 0x5C
_COC, _POC, _PPM, _PPT, _SOT, _SOD, _EOC = 0x53, 0x5F, 0x60, 0x61, b"\xff\x90", b"\xff\x93", b"\xff\xd9"
_REFUSED = {
    COD: "a separate coding style (COD), whose code-blocks cannot be checked",
    _COC: "a separate coding style (COC), whose code-blocks cannot be checked",
    _PPM: "packed packet headers (PPM), whose number cannot be checked",
    _PPT: "packed packet headers (PPT), whose number cannot be checked",
}
"""Refused marker segments, which an image of one component does not need. A second coding style would replace the one
that was checked (T.800 A.6.1, A.6.2)."""
MAX_TILE_PARTS = 100_000
"""Largest number of tile-parts and marker segments in them, together. A mammogram with tiles of 64 x 64 pixels in six
tile-parts has 20,000."""
MAX_BOXES = 1_000
"""Largest number of boxes in a JP2 file."""
MAX_PARTS = 100_000
"""Largest number of precincts and code-blocks in a small image; OpenJPEG allocates about 550 bytes per precinct. A
mammogram of 5,000 x 4,000 has 78,000 code-blocks of 16 x 16."""
MAX_PACKETS = 100_000
"""Largest number of packets in a small image: one per layer and precinct. A mammogram of 5,000 x 4,000 with precincts
of 128 x 128 and twelve layers has 20,000."""
PART_PIXELS = 512
"""Pixels per part or packet in a large image, which may have more than the two limits above. An image of 10,000 x
10,000 has 98,000 code-blocks of 32 x 32; with tiles of 64 x 64 and six resolutions it has 148,000 packets."""
MAX_STEPS = 4_000_000
"""Largest number of positions at which a decoder looks for precincts, in progression orders by position (T.800
B.12.1.3 to B.12.1.5)."""
MAX_ORDERS = 31
"""Largest number of progression order changes, the limit of OpenJPEG."""

Edges = np.ndarray[tuple[int], np.dtype[np.int64]]
"""Positions along an axis of the reference grid, ascending."""


def codestream_of(file: bytes) -> bytes:
    """The contiguous codestream of a JP2 file (T.800 Annex I). Raises StreamError."""
    boxes = dict(reversed(list(_boxes(file))))
    if b"jp2c" not in boxes:
        raise StreamError("it is a JP2 file without a codestream")
    if b"pclr" in dict(_boxes(boxes.get(b"jp2h", b""))):
        raise StreamError("it is a JP2 file with a palette")
    return boxes[b"jp2c"]


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each box (T.800 I.4)."""
    at = 0
    for _ in range(MAX_BOXES):
        if at + 8 > len(content):
            return
        length, kind = struct.unpack_from(">I4s", content, at)
        head = 8
        if length == 1 and at + 16 <= len(content):
            length, head = int.from_bytes(content[at + 8 : at + 16]), 16
        # a length of 0: up to the end of the file
        end = at + length if length else len(content)
        if end > len(content) or end < at + head:
            raise StreamError("a box of its JP2 file is longer than the rest of the file")
        yield kind, content[at + head : end]
        at = end
    raise StreamError(f"its JP2 file has more than {MAX_BOXES} boxes")


@dataclass(frozen=True, kw_only=True)
class _TilePart:
    """A tile-part, as its SOT states it (T.800 A.4.2)."""

    tile: int
    """Index of the tile (Isot)."""
    index: int
    """Index among the parts of its tile (TPsot)."""
    stated: int
    """Number of parts of the tile (TNsot), 0 if not stated."""
    start: int
    """Position of SOT, in bytes."""
    end: int
    """Position after the last byte."""


@dataclass(frozen=True, kw_only=True)
class Codestream:
    """A codestream that has all of its tiles."""

    content: bytes
    main: tuple[Segment, ...]
    """The segments of the main header."""
    lasts: tuple[_TilePart, ...]
    """The last part of each tile, in the order of the stream."""

    def lengthened(self, count: int) -> "Codestream":
        """This codestream with `count` zero bytes appended to the data of every tile."""
        pieces, at = [], 0
        for part in self.lasts:
            (length,) = _parameters(">I", self.content, part.start + 6)
            pieces += [self.content[at : part.start + 6], struct.pack(">I", length + count if length else 0)]
            pieces += [self.content[part.start + 10 : part.end], bytes(count)]
            at = part.end
        return replace(self, content=b"".join((*pieces, self.content[at:])), lasts=())


def checked(content: bytes, shape: tuple[int, int]) -> Codestream:
    """Check a codestream of one component and `shape` (rows, columns): all tile-parts complete, and EOC present.

    Raises StreamError, also if a header exceeds a limit of this module.
    """
    if not content.startswith(_START):
        raise StreamError("it does not begin as a JPEG 2000 codestream (FF 4F FF 51)")
    main = tuple(_header(content, 2, _SOT))
    cod = only(main, COD, "COD")
    across, down = _tile_edges(main[0], shape)
    _check_packets(cod, across, down, shape)
    _check_header((segment for segment in main if segment.marker != COD), "its main header", cod)
    parts, end = _tile_parts(content, main[-1].end, cod)
    if content[end : end + 2] != _EOC or content[end + 2 :].strip(b"\0"):
        raise StreamError(f"it does not end with EOC (FF D9) after its last tile, at byte {end}")
    lasts = _lasts(parts)
    if {part.tile for part in lasts} != set(range(tiles := (len(across) - 1) * (len(down) - 1))):
        raise StreamError(f"it has {len(lasts)} tiles, its header states {tiles}")
    return Codestream(content=content, main=main, lasts=lasts)


def _tile_parts(content: bytes, at: int, cod: Segment) -> tuple[list[_TilePart], int]:
    """The tile-parts from `at` on, and the end of the last one."""
    parts: list[_TilePart] = []
    number = 0
    while content[at : at + 2] == _SOT:
        tile, length, index, stated = _parameters(">4xHIBB", content, at)
        if length and length < 14:
            raise StreamError(f"a tile-part at byte {at} states {length} bytes, expected at least 14")
        number += 1 + _check_header(_header(content, at + 12, _SOD), "a tile-part", cod)
        if number > MAX_TILE_PARTS:
            raise StreamError(f"it has more than {MAX_TILE_PARTS} tile-parts and marker segments in them")
        end = at + length if length else len(content.rstrip(b"\0")) - len(_EOC)  # 0: up to EOC
        parts.append(_TilePart(tile=tile, index=index, stated=stated, start=at, end=end))
        at = end
    return parts, at


def _lasts(parts: Sequence[_TilePart]) -> tuple[_TilePart, ...]:
    """The last part of each tile.

    Raises StreamError unless the parts are numbered from 0 on and their number is as stated (T.800 A.4.2).
    """
    lasts: dict[int, _TilePart] = {}
    stated: dict[int, int] = {}
    for part in parts:
        before = lasts.pop(part.tile, None)
        if part.index != (expected := before.index + 1 if before else 0):
            raise StreamError(f"tile {part.tile} has tile-part {part.index}, expected tile-part {expected}")
        lasts[part.tile] = part
        number = stated.setdefault(part.tile, part.stated) or part.stated
        if part.stated not in (0, number):
            raise StreamError(f"the headers of tile {part.tile} state {number} and {part.stated} tile-parts")
        stated[part.tile] = number
    for tile, part in lasts.items():
        if stated[tile] not in (0, part.index + 1):
            raise StreamError(f"tile {tile} has {part.index + 1} tile-parts, its header states {stated[tile]}")
    return tuple(lasts.values())


def _check_header(header: Iterable[Segment], where: str, cod: Segment) -> int:
    """Number of segments in a header. Raises StreamError for one that prevents the checks of this module."""
    number = 0
    for number, segment in enumerate(header, 1):  # noqa: B007 (it is the count)
        if segment.marker in _REFUSED:
            raise StreamError(f"{where} has {_REFUSED[segment.marker]}")
        if segment.marker == _POC:
            _check_orders(segment, cod)
    return number


def _check_orders(poc: Segment, cod: Segment) -> None:
    """Check that progression order changes reach all layers of all resolutions, else packets are missing.

    Raises StreamError. Source: T.800 A.6.6.
    """
    if not poc.body or len(poc.body) % 7 or len(poc.body) > 7 * MAX_ORDERS:
        raise StreamError(
            f"its progression order changes (POC) have {len(poc.body)} bytes, expected 7 bytes each for 1 to "
            f"{MAX_ORDERS} changes"
        )
    levels, layers = _levels(cod), _layers(cod)
    orders = list(struct.iter_unpack(">BBHBBB", poc.body))
    for resolution in range(levels + 1):
        reaching = [last for low, first, last, high, _, _ in orders if low <= resolution < high and first == 0]
        if (reached := max(reaching, default=0)) < layers:
            raise StreamError(
                f"its progression order changes (POC) reach {reached} of {layers} layers of resolution {resolution}"
            )


def _levels(cod: Segment) -> int:
    """Decomposition levels (T.800 table A.15). Raises StreamError for a COD that is too short."""
    if len(cod.body) < 10 or cod.body[5] > 32 or (cod.body[0] & 1 and len(cod.body) < 11 + cod.body[5]):
        raise StreamError("its coding style (COD) is too short, or has more than 32 levels")
    return cod.body[5]


def _layers(cod: Segment) -> int:
    return int.from_bytes(cod.body[2:4])


def _check_packets(cod: Segment, across: Edges, down: Edges, shape: tuple[int, int]) -> None:
    """Limit precincts, code-blocks and packets before decoding (T.800 tables A.14, A.15, A.18, A.21; B.6, B.7).

    Raises StreamError.
    """
    levels, layers = _levels(cod), _layers(cod)
    sizes = cod.body[10:] if cod.body[0] & 1 else b"\xff" * (levels + 1)
    steps = [(levels - resolution, size & 15, size >> 4) for resolution, size in enumerate(sizes[: levels + 1])]
    precincts = sum(_precincts(across, level, wide) * _precincts(down, level, high) for level, wide, high in steps)
    size = shape[0] * shape[1]
    parts = precincts + size // (1 << ((cod.body[6] & 15) + (cod.body[7] & 15) + 4))
    _check_count(parts, MAX_PARTS, f"{parts} precincts and code-blocks", size)
    packets = precincts * layers
    _check_count(packets, MAX_PACKETS, f"{packets} packets ({layers} layers of {precincts} precincts)", size)
    # in orders by position, a decoder steps by the smallest precinct, at every resolution
    columns = _precincts(across, 0, min(level + wide for level, wide, _ in steps))
    rows = _precincts(down, 0, min(level + high for level, _, high in steps))
    if (places := rows * columns * (levels + 1)) > MAX_STEPS:
        raise StreamError(f"its precincts begin at {places} positions, expected up to {MAX_STEPS}")


def _check_count(count: int, small: int, counted: str, size: int) -> None:
    """Raise StreamError if `count` is too large for an image of `size` pixels; `small`: the limit of a small image."""
    most = max(small, size // PART_PIXELS)
    if count > most:
        raise StreamError(f"its header states {counted}, expected up to {most} in {size} pixels")


def _precincts(edges: Edges, level: int, size: int) -> int:
    """Number of precincts of size 2^`size` along one axis in all tiles, at the resolution `level` levels below full."""
    at = -(-edges >> level)
    first, last = at[:-1] >> size, -(-at[1:] >> size)
    return int(np.where(at[1:] > at[:-1], last - first, 0).sum())


def _header(codestream: bytes, at: int, end_marker: bytes) -> Iterator[Segment]:
    """The marker segments from `at` up to `end_marker`: SOT for the main header, SOD for a tile-part (T.800 A.3)."""
    for _ in range(MAX_SEGMENTS):
        if codestream[at : at + 2] == end_marker:
            return
        marker, length = _parameters(">HH", codestream, at)
        end = at + 2 + length
        if marker < 0xFF00 or length < 2 or end > len(codestream):
            raise StreamError(f"its main header is damaged at byte {at}")
        yield Segment(marker=marker & 0xFF, body=codestream[at + 4 : end], end=end)
        at = end
    raise StreamError(f"a header has more than {MAX_SEGMENTS} marker segments")


def _tile_edges(siz: Segment, shape: tuple[int, int]) -> tuple[Edges, Edges]:
    """Edges of the tiles, across and down, from a SIZ of one component and `shape` (T.800 A.5.1, B.3).

    Raises StreamError.
    """
    right, bottom, left, top, width, height, tile_left, tile_top, components, depth, horizontal, vertical = _parameters(
        ">xx8IH3B", siz.body, 0
    )
    check_size((bottom - top, right - left), shape)
    if components != 1 or (horizontal, vertical) != (1, 1):
        raise StreamError(
            f"its header states {components} components with subsampling {horizontal} x {vertical}, expected one "
            "component without subsampling"
        )
    if (depth & 0x7F) + 1 > 16:
        raise StreamError(f"its header states {(depth & 0x7F) + 1} bits, expected up to 16")
    if not (width and height and tile_left <= left and tile_top <= top):
        raise StreamError("its header states tiles without size, or no tile at the image origin")
    columns, rows = -(-(right - tile_left) // width), -(-(bottom - tile_top) // height)
    if columns * rows > 65535:
        raise StreamError(f"its header states {columns * rows} tiles, expected up to 65535")
    return (
        np.clip(tile_left + width * np.arange(columns + 1), left, right),
        np.clip(tile_top + height * np.arange(rows + 1), top, bottom),
    )


def _parameters(layout: str, content: bytes, at: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(layout, content, at)
    except struct.error:
        raise StreamError(f"it ends within a header at byte {at}") from None

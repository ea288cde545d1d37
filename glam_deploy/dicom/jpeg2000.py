"""JPEG 2000 and HTJ2K (ITU-T T.800, T.814) by OpenJPEG, whose warnings count as errors.

OpenJPEG compares, at the end of each code-block, the bytes that were read with those that are there, if the stream
promises predictable termination. The promise changes nothing else of what is decoded, so it is put into the stream
first: nearly all damage within a code-block shows. Other Python threads go on meanwhile.
"""

import logging
import re
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from glam_deploy.dicom.segments import MAX_SEGMENTS, Segment, Stated, StreamError, check_claim, only
from glam_deploy.errors import BackendUnavailable
from glam_deploy.records import Pixels

_START = b"\xff\x4f\xff\x51"
"""How a codestream begins: SOC and SIZ (T.800 A.4.1, A.5.1)."""
_FILE = b"\0\0\0\x0cjP  \r\n\x87\n"
"""How a JP2 file begins: the signature box (T.800 I.5.1)."""
_COD, _COC, _QCD, _SOD, _EOC = 0x52, 0x53, 0x5C, b"\xff\x93", b"\xff\xd9"
_PREDICTABLE, _HIGH_THROUGHPUT = 0x10, 0x40
"""Bits of the code-block style (T.800 table A.19, T.814 table A.7)."""

_TERMINATION = re.compile(r"PTERM check failure: (\d+) (remaining bytes|synth)")
_SLACK = 8
"""Bytes by which a sound code-block of a lossless stream may end early or late: encoders round the length of what they
write up, or leave bytes out that a decoder fills in (T.800 D.4.1); both are up to five."""
MAX_TILE_PARTS = 100_000
"""Tile-parts of an image, and marker segments in them, together: a tile for each 64 x 64 pixels of a mammogram, in six
tile-parts, has 20,000."""
MAX_BOXES = 1_000
"""Boxes of a JP2 file."""
MAX_PARTS = 1_000_000
"""Precincts and code-blocks of an image; OpenJPEG takes some 550 bytes for a precinct. A mammogram of 10,000 x 10,000
has 98,000 code-blocks of 32 x 32."""
_SLACK_LOSSY = 64
"""The same where code-blocks may be truncated between passes, whose lengths encoders estimate: up to 18 was seen."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An image and what its stream says about it."""

    pixels: Pixels
    """uint8, int8, uint16 or int16 [rows, columns]."""
    in_file: bool
    """Whether the codestream stood in a JP2 file."""
    stated: Stated


def decode(stream: bytes, shape: tuple[int, int], *, lossless: bool = True) -> Decoded:
    """The image of `shape` (rows, columns) in a codestream or JP2 file of one component, up to 16 bits.

    `lossless`: whether the transfer syntax lets nothing be left out of a stream. Raises StreamError where the stream is
    not one sound image of that shape.
    """
    import imagecodecs

    in_file = stream.startswith(_FILE)
    codestream = _codestream(stream) if in_file else stream
    main = _check(codestream, shape)
    stated = _stated(main)
    slack = _SLACK if lossless and not stated.loss else _SLACK_LOSSY
    with _messages() as messages:
        try:
            pixels = np.asarray(imagecodecs.jpeg2k_decode(_promising(codestream, main), verbose=3))
        except imagecodecs.Jpeg2kError as error:
            raise StreamError(f"OpenJPEG refuses it ({'; '.join(_grave(messages, slack)) or error})") from None
    if grave := _grave(messages, slack):
        raise StreamError(_fault(grave))
    return Decoded(pixels=pixels, in_file=in_file, stated=stated)


def _stated(main: Sequence[Segment]) -> Stated:
    """Ssiz, and whether the wavelet and the quantization of the first style are reversible (T.800 A.5.1, A.6.1, A.6.4).

    The styles of all tiles are those of the main header, but for a quantization of their own (QCD, QCC).
    """
    siz, cod, qcd = main[0], only(main, _COD, "COD"), only(main, _QCD, "QCD")
    if not qcd.body:
        raise StreamError("its quantization (QCD) is empty")
    reasons = ["the irreversible 9-7 wavelet"] * (cod.body[9] == 0) + ["quantized coefficients"] * bool(
        qcd.body[0] & 31
    )
    loss = f"JPEG 2000 with {' and '.join(reasons)}" if reasons else ""
    return Stated(precision=(siz.body[36] & 0x7F) + 1, loss=loss)


def _grave(messages: Sequence[str], slack: int) -> list[str]:
    """Errors, and warnings but those of code-blocks that end up to `slack` bytes early or late."""
    return [text for text in messages if not text.startswith("info") and not _is_within(text, slack)]


def _fault(grave: Sequence[str]) -> str:
    if all(_TERMINATION.search(text) for text in grave):
        return f"{len(grave)} of its code-blocks hold more or fewer bytes than their pixels need"
    return f"OpenJPEG tells {len(grave)} faults, the first: {grave[0]}"


def _is_within(warning: str, slack: int) -> bool:
    match = _TERMINATION.search(warning)
    return match is not None and int(match[1]) <= slack


@contextmanager
def _messages() -> Iterator[list[str]]:
    """What OpenJPEG says while this thread decodes; imagecodecs hands it to the logger of its own name.

    From now on, in this process, that logger writes nowhere else. Raises BackendUnavailable at the end where nothing
    came, for then a warning would not have come either.
    """
    collector, logger = _Collector(), logging.getLogger("imagecodecs")
    logger.propagate = logger.disabled = False
    logger.setLevel(logging.INFO)
    logger.addHandler(collector)
    try:
        yield collector.messages
    finally:
        logger.removeHandler(collector)
    if not collector.messages:
        raise BackendUnavailable(
            "OpenJPEG's warnings cannot be read, so damage to JPEG 2000 would not be seen: Python's logging is "
            "switched off (logging.disable). Switch it on, or set levels of single loggers instead"
        )


class _Collector(logging.Handler):
    """Keeps the messages of the thread that made it."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if threading.get_ident() == self._thread:
            self.messages.append(record.getMessage().removeprefix("JPEG2K ").strip())


def _codestream(file: bytes) -> bytes:
    """The contiguous codestream of a JP2 file (T.800 Annex I)."""
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


def _check(codestream: bytes, shape: tuple[int, int]) -> tuple[Segment, ...]:
    """The segments of the main header of a codestream that is whole: all tiles, to the last byte, and EOC."""
    if not codestream.startswith(_START):
        raise StreamError("no codestream of JPEG 2000 begins with it (FF 4F FF 51)")
    main = tuple(_header(codestream, 2, b"\xff\x90"))
    _refuse_styles((segment for segment in main if segment.marker != _COD), "its main header")
    tiles = _check_size(main[0], shape)
    seen, at, parts = set(), main[-1].end, 0
    _check_parts(only(main, _COD, "COD"), shape)
    while codestream[at : at + 2] == b"\xff\x90":
        index, length = _tile_part(codestream, at)
        parts += 1 + _refuse_styles(_header(codestream, at + 12, _SOD), "a tile-part")
        if parts > MAX_TILE_PARTS:
            raise StreamError(f"it has more than {MAX_TILE_PARTS} tile-parts and marker segments in them")
        seen.add(index)
        at = at + length if length else len(codestream.rstrip(b"\0")) - len(_EOC)
    if codestream[at : at + 2] != _EOC or codestream[at + 2 :].strip(b"\0"):
        raise StreamError(f"it does not end with EOC (FF D9) behind its last tile, at byte {at}")
    if seen != set(range(tiles)):
        raise StreamError(f"it holds {len(seen)} tiles, its header states {tiles}")
    return main


def _refuse_styles(header: Iterable[Segment], where: str) -> int:
    """How many segments a header has, none of them a coding style of a component or a tile (COC, COD).

    An image of one component needs none. They would take the place of the style into which `_promising` writes
    (T.800 A.6.1, A.6.2).
    """
    number = 0
    for number, segment in enumerate(header, 1):  # noqa: B007 (it is the count)
        if segment.marker in (_COD, _COC):
            told = f"{where} has a coding style of its own (COC or COD), whose code-blocks cannot be checked"
            raise StreamError(told)
    return number


def _check_parts(cod: Segment, shape: tuple[int, int]) -> None:
    """Bound precincts and code-blocks before they are made (T.800 tables A.15, A.18, A.21; B.6, B.7)."""
    if len(cod.body) < 10 or cod.body[5] > 32:
        raise StreamError("its coding style (COD) is too short, or has more than 32 levels")
    levels, block = cod.body[5], 1 << ((cod.body[6] & 15) + (cod.body[7] & 15) + 4)
    parts = shape[0] * shape[1] // block
    sizes = cod.body[10:] if cod.body[0] & 1 else b""
    for resolution, size in enumerate(sizes[: levels + 1]):
        rows, columns = (-(-side >> (levels - resolution)) for side in shape)
        parts += -(-rows >> (size >> 4)) * -(-columns >> (size & 15))
    if parts > MAX_PARTS:
        raise StreamError(f"its header states {parts} precincts and code-blocks, expected up to {MAX_PARTS}")


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


def _check_size(siz: Segment, shape: tuple[int, int]) -> int:
    """How many tiles an image has by its SIZ (T.800 A.5.1, B.3), which must be one component of `shape`."""
    right, bottom, left, top, width, height, tile_left, tile_top, components, depth, horizontal, vertical = _parameters(
        ">xx8IH3B", siz.body, 0
    )
    check_claim((bottom - top, right - left), shape)
    if components != 1 or (horizontal, vertical) != (1, 1):
        raise StreamError(f"its header states {components} components, expected one, of every pixel")
    if (depth & 0x7F) + 1 > 16:
        raise StreamError(f"its header states {(depth & 0x7F) + 1} bits, expected up to 16")
    if not (width and height and tile_left <= left and tile_top <= top):
        raise StreamError("its header states tiles of no size, or none where the image begins")
    tiles = -(-(right - tile_left) // width) * -(-(bottom - tile_top) // height)
    if tiles > 65535:
        raise StreamError(f"its header states {tiles} tiles, expected up to 65535")
    return tiles


def _tile_part(codestream: bytes, at: int) -> tuple[int, int]:
    """Index of a tile, and length in bytes of its part that begins at `at`; 0 for up to EOC (T.800 A.4.2)."""
    index, length = _parameters(">4xHI", codestream, at)
    if length and length < 14:
        raise StreamError(f"a tile-part at byte {at} states {length} bytes")
    return index, length


def _parameters(layout: str, content: bytes, at: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(layout, content, at)
    except struct.error:
        raise StreamError(f"it ends within a header, at byte {at}") from None


def _promising(codestream: bytes, main: Sequence[Segment]) -> bytes:
    """The codestream with the promise of predictable termination (T.800 table A.19), of which HTJ2K knows nothing."""
    cod = only(main, _COD, "COD")
    if len(cod.body) < 9:
        raise StreamError("its coding style (COD) is too short")
    style = cod.end - len(cod.body) + 8
    promised = codestream[style] | (0 if codestream[style] & _HIGH_THROUGHPUT else _PREDICTABLE)
    return b"".join((codestream[:style], bytes([promised]), codestream[style + 1 :]))

"""JPEG 2000 and HTJ2K (ITU-T T.800, T.814) by OpenJPEG, whose warnings count as errors.

OpenJPEG compares, at the end of each code-block, the bytes that were read with those that are there, if the stream
promises predictable termination. The promise changes nothing else of what is decoded, so it is put into the stream
first: nearly all damage within a code-block shows. In the same way, a stream is said to have SOP segments, which may be
left out (T.800 A.8.1): OpenJPEG then tells every packet for which no data are left, instead of taking it for empty.
Other Python threads go on meanwhile.
"""

import logging
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from glam_deploy.dicom.transfer_syntaxes.codestream import COD, FILE, QCD, Codestream, checked, codestream_of
from glam_deploy.dicom.transfer_syntaxes.segments import Segment, Stated, StreamError, only
from glam_deploy.errors import BackendUnavailable
from glam_deploy.records import Pixels

_PREDICTABLE, _HIGH_THROUGHPUT = 0x10, 0x40
"""Bits of the code-block style (T.800 table A.19, T.814 table A.7)."""
_PACKET_STARTS = 0x02
"""The bit of the coding style for SOP segments, which may then stand in front of packets (T.800 tables A.13, A.8.1)."""
_NO_START, _NO_PACKET = "warning: Expected SOP marker", "warning: Not enough space for expected SOP marker"
_START_LENGTH = 6

_TERMINATION = re.compile(r"PTERM check failure: (\d+) (remaining bytes|synth)")
_SLACK = 8
"""Bytes by which a sound code-block of a lossless stream may end early or late: encoders round the length of what they
write up, or leave bytes out that a decoder fills in (T.800 D.4.1); both are up to five."""
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
    in_file = stream.startswith(FILE)
    codestream = checked(codestream_of(stream) if in_file else stream, shape)
    stated = _stated(codestream.main)
    slack = _SLACK if lossless and not stated.loss else _SLACK_LOSSY
    pixels, grave = _decoded(codestream, slack)
    spare = _START_LENGTH - 1
    # the last packets of a tile may be too short for the marker, as many as it has bytes but one; with those bytes
    # behind them, one that is there never is
    if set(grave) == {_NO_PACKET} and len(grave) <= spare * len(codestream.lasts):
        pixels, grave = _decoded(codestream.lengthened(spare), slack)
    elif missing := grave.count(_NO_PACKET):
        raise StreamError(f"{missing} of its packets are missing or have less than {_START_LENGTH} bytes")
    if grave:
        raise StreamError(_fault(grave))
    return Decoded(pixels=pixels, in_file=in_file, stated=stated)


def _decoded(codestream: Codestream, slack: int) -> tuple[Pixels, list[str]]:
    """The pixels that OpenJPEG decodes, and its errors and warnings that mean damage."""
    import imagecodecs

    with _messages() as messages:
        try:
            pixels = np.asarray(imagecodecs.jpeg2k_decode(_promising(codestream), verbose=3))
        except imagecodecs.Jpeg2kError as error:
            raise StreamError(f"OpenJPEG refuses it ({'; '.join(_grave(messages, slack)) or error})") from None
    starts = only(codestream.main, COD, "COD").body[0] & _PACKET_STARTS
    return pixels, [text for text in _grave(messages, slack) if starts or text != _NO_START]


def _stated(main: Sequence[Segment]) -> Stated:
    """Ssiz, and whether the wavelet and the quantization of the first style are reversible (T.800 A.5.1, A.6.1, A.6.4).

    The styles of all tiles are those of the main header, but for a quantization of their own (QCD, QCC).
    """
    siz, cod, qcd = main[0], only(main, COD, "COD"), only(main, QCD, "QCD")
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
    if missing := grave.count(_NO_PACKET):
        return f"it ends before {missing} of its packets"
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
            self.messages.append(sys.intern(record.getMessage().removeprefix("JPEG2K ").strip()))


def _promising(codestream: Codestream) -> bytes:
    """With the promises of SOP segments and of predictable termination, of which HTJ2K does not know (table A.19)."""
    cod = only(codestream.main, COD, "COD")
    content, begin = codestream.content, cod.end - len(cod.body)
    style = bytearray(cod.body)
    style[0] |= _PACKET_STARTS
    style[8] |= 0 if style[8] & _HIGH_THROUGHPUT else _PREDICTABLE
    return b"".join((content[:begin], style, content[cod.end :]))

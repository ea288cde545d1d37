"""JPEG 2000 and HTJ2K (ITU-T T.800, T.814), decoded by OpenJPEG, whose warnings count as errors.

If a stream signals predictable termination, OpenJPEG compares the bytes read with the bytes present at the end of each
code-block. The flag has no other effect on decoding, so it is set before decoding; this detects nearly all damage
within a code-block. The flag for SOP segments is set too; these segments are optional (T.800 A.8.1). With it OpenJPEG
reports every packet without data instead of treating it as empty. Decoding releases the GIL.
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
from glam_deploy.dicom.transfer_syntaxes.segments import Segment, StreamError, StreamInfo, only
from glam_deploy.errors import BackendUnavailable
from glam_deploy.records import Pixels

_PREDICTABLE, _HIGH_THROUGHPUT = 0x10, 0x40
"""Bits of the code-block style (T.800 table A.19, T.814 table A.7)."""
_PACKET_STARTS = 0x02
"""Bit of the coding style that allows SOP segments before packets (T.800 table A.13, A.8.1)."""
_NO_START, _NO_PACKET = "warning: Expected SOP marker", "warning: Not enough space for expected SOP marker"
_START_LENGTH = 6

_TERMINATION = re.compile(r"PTERM check failure: (\d+) (remaining bytes|synth)")
_SLACK = 8
"""Largest difference in bytes at the end of an undamaged code-block of a lossless stream: encoders round lengths up, or
omit bytes that a decoder fills in (T.800 D.4.1); both are up to five."""
_SLACK_LOSSY = 64
"""The same for code-blocks that may be truncated between passes, whose lengths encoders estimate; 18 was observed."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An image and the properties that its stream states."""

    pixels: Pixels
    """uint8, int8, uint16 or int16 [rows, columns]."""
    in_file: bool
    """Whether the codestream was inside a JP2 file."""
    info: StreamInfo


def decode(stream: bytes, shape: tuple[int, int], *, lossless: bool = True) -> Decoded:
    """Decode a codestream or JP2 file of `shape` (rows, columns) with one component, up to 16 bits.

    `lossless`: whether the transfer syntax requires lossless compression. Raises StreamError if the stream is not one
    undamaged image of that shape.
    """
    in_file = stream.startswith(FILE)
    codestream = checked(codestream_of(stream) if in_file else stream, shape)
    info = _read_info(codestream.main)
    slack = _SLACK if lossless and not info.loss else _SLACK_LOSSY
    pixels, damage = _decode_once(codestream, slack)
    spare = _START_LENGTH - 1
    # up to five last packets of a tile (one less than the marker's bytes) may be too short for the marker; with five
    # bytes appended, a packet that is present is never too short
    if set(damage) == {_NO_PACKET} and len(damage) <= spare * len(codestream.lasts):
        pixels, damage = _decode_once(codestream.lengthened(spare), slack)
    elif missing := damage.count(_NO_PACKET):
        raise StreamError(f"{missing} of its packets are missing or have fewer than {_START_LENGTH} bytes")
    if damage:
        raise StreamError(_describe(damage))
    return Decoded(pixels=pixels, in_file=in_file, info=info)


def _decode_once(codestream: Codestream, slack: int) -> tuple[Pixels, list[str]]:
    """The pixels that OpenJPEG decodes, and its errors and warnings about damage."""
    import imagecodecs

    with _captured_messages() as messages:
        try:
            pixels = np.asarray(imagecodecs.jpeg2k_decode(_with_flags(codestream), verbose=3))
        except imagecodecs.Jpeg2kError as error:
            raise StreamError(f"OpenJPEG refuses it ({'; '.join(_damage(messages, slack)) or error})") from None
    starts = only(codestream.main, COD, "COD").body[0] & _PACKET_STARTS
    return pixels, [text for text in _damage(messages, slack) if starts or text != _NO_START]


def _read_info(main: Sequence[Segment]) -> StreamInfo:
    """Ssiz, and whether wavelet and quantization are reversible, from the main header (T.800 A.5.1, A.6.1, A.6.4).

    The coding styles of all tiles are those of the main header; a tile may have a separate quantization (QCD, QCC).
    """
    siz, cod, qcd = main[0], only(main, COD, "COD"), only(main, QCD, "QCD")
    if not qcd.body:
        raise StreamError("its quantization (QCD) is empty")
    reasons = ["the irreversible 9-7 wavelet"] * (cod.body[9] == 0) + ["quantized coefficients"] * bool(
        qcd.body[0] & 31
    )
    loss = f"JPEG 2000 with {' and '.join(reasons)}" if reasons else ""
    return StreamInfo(precision=(siz.body[36] & 0x7F) + 1, loss=loss)


def _damage(messages: Sequence[str], slack: int) -> list[str]:
    """Errors and warnings, without warnings of code-blocks that end up to `slack` bytes early or late."""
    return [text for text in messages if not text.startswith("info") and not _is_within(text, slack)]


def _describe(damage: Sequence[str]) -> str:
    if missing := damage.count(_NO_PACKET):
        return f"it ends before {missing} of its packets"
    if all(_TERMINATION.search(text) for text in damage):
        return f"{len(damage)} of its code-blocks have more or fewer bytes than their pixels need"
    return f"OpenJPEG reports {len(damage)} errors, the first: {damage[0]}"


def _is_within(warning: str, slack: int) -> bool:
    match = _TERMINATION.search(warning)
    return match is not None and int(match[1]) <= slack


@contextmanager
def _captured_messages() -> Iterator[list[str]]:
    """Collect the messages of OpenJPEG while this thread decodes; imagecodecs passes them to the logger "imagecodecs".

    Propagation of that logger stays off in this process. Raises BackendUnavailable at the end if there was no message,
    because then a warning would have been lost too.
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
            "warnings of OpenJPEG cannot be read, so damage to JPEG 2000 would not be detected: Python's logging is "
            "disabled (logging.disable). Enable it, or set levels of single loggers instead"
        )


class _Collector(logging.Handler):
    """Log handler that keeps the messages of the thread that created it."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if threading.get_ident() == self._thread:
            self.messages.append(sys.intern(record.getMessage().removeprefix("JPEG2K ").strip()))


def _with_flags(codestream: Codestream) -> bytes:
    """The codestream with the flags for SOP segments and, except in HTJ2K, for predictable termination (table A.19)."""
    cod = only(codestream.main, COD, "COD")
    content, begin = codestream.content, cod.end - len(cod.body)
    style = bytearray(cod.body)
    style[0] |= _PACKET_STARTS
    style[8] |= 0 if style[8] & _HIGH_THROUGHPUT else _PREDICTABLE
    return b"".join((content[:begin], style, content[cod.end :]))

"""JPEG-LS (ITU-T T.87) by CharLS, and once more to see that no bit of the last pixel is missing.

CharLS refuses nearly all damage by itself, but not a scan that lacks its last byte, and it reads on for many seconds
where a scan has no end. Other Python threads go on meanwhile.
"""

import re

import numpy as np

from glam_deploy.dicom.transfer_syntaxes.segments import (
    EOI,
    SOS,
    Stated,
    StreamError,
    check_claim,
    only,
    parameters,
    segments,
)
from glam_deploy.records import Pixels

_SOF55, _DRI = 0xF7, 0xDD

_MARKER = re.compile(rb"(?<!\xff)\xff+([\x80-\xfe])")  # from the first FF on, so that a run of them is read once
"""A marker behind coded data with the fill bytes before it; FF and a byte below 80 are data (T.87 A.1)."""


def decode(stream: bytes, shape: tuple[int, int]) -> Pixels:
    """The image of `shape` (rows, columns) in a stream of one component, lossless or near-lossless, 2 to 16 bits.

    uint8 (up to 8 bits) or uint16 [rows, columns]. Raises StreamError where the stream is not one sound image of that
    shape.
    """
    found = list(segments(stream))
    frame, scan = only(found, _SOF55, "SOF55"), only(found, SOS, "SOS")
    _, rows, columns, components = parameters("BHHB", frame)
    check_claim((rows, columns), shape)
    if components != 1:
        raise StreamError(f"its frame header states {components} components, expected one")
    end = _end(stream, scan.end, restarts=rows * any(segment.marker == _DRI for segment in found))
    pixels = _decoded(stream)
    if _depend_on_more(pixels, stream[:end]):
        raise StreamError("its data end before the last pixel")
    return pixels


def stated(stream: bytes) -> Stated:
    """What the frame and scan headers say (T.87 C.2.2, C.2.3). Raises StreamError."""
    found = list(segments(stream))
    (precision,) = parameters("B", only(found, _SOF55, "SOF55"))
    *_, near = parameters("BBBB", only(found, SOS, "SOS"))
    return Stated(precision=precision, loss=f"JPEG-LS with NEAR {near}, an error of up to {near}" if near else "")


def _end(stream: bytes, start: int, *, restarts: int) -> int:
    """Where the data of the scan that begins at `start` end; EOI must follow, and nothing but padding behind it.

    `restarts`: the most restart markers that may be among them.
    """
    for number, marker in enumerate(_MARKER.finditer(stream, start)):
        if marker[1][0] == EOI:
            # an encapsulated frame may be padded behind EOI (PS3.5 A.4)
            if stream[marker.end() :].strip(b"\0"):
                raise StreamError("something else follows behind EOI (FF D9)")
            return marker.start()
        if not (number < restarts and 0xD0 <= marker[1][0] <= 0xD7):
            raise StreamError(f"its data are interrupted by the marker FF {marker[1][0]:02X} at byte {marker.start()}")
    raise StreamError("it ends without EOI (FF D9)")


def _decoded(stream: bytes) -> Pixels:
    import imagecodecs

    try:
        return np.asarray(imagecodecs.jpegls_decode(stream))
    except imagecodecs.JpeglsError as error:
        raise StreamError(f"CharLS refuses it ({str(error).partition(' returned ')[2]})") from None


def _depend_on_more(pixels: Pixels, begun: bytes) -> bool:
    """Whether other pixels come of `begun`, a stream up to the end of its data, where a bit 1 follows the data.

    CharLS takes bits that the last code lacks for zeros. No pixel of a sound stream depends on what follows its data:
    CharLS refuses the bit, or passes over it where the data end at its read buffer's end, and the pixels stay the same.
    Behind a byte FF comes a stuffed bit 0 first (T.87 A.1).
    """
    bit = b"\x40" if begun.endswith(b"\xff") else b"\x80"
    try:
        others = _decoded(begun + bit + b"\xff\xd9")
    except StreamError:
        return False
    return not np.array_equal(others, pixels)

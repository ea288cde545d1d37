"""JPEG-LS (ITU-T T.87), decoded by CharLS, twice to detect missing bits of the last pixel.

CharLS detects nearly all damage, but not a scan without its last byte, and it runs for many seconds if a scan has no
end. Decoding releases the GIL.
"""

import re

import numpy as np

from glam_deploy.dicom.transfer_syntaxes.segments import (
    EOI,
    SOS,
    StreamError,
    StreamInfo,
    check_size,
    only,
    parameters,
    segments,
)
from glam_deploy.records import Pixels

_SOF55, _DRI = 0xF7, 0xDD

_MARKER = re.compile(rb"(?<!\xff)\xff+([\x80-\xfe])")  # from the first FF on, so that a run of them is read once
"""A marker after coded data with its fill bytes; FF followed by a byte below 80 is data (T.87 A.1)."""


def decode(stream: bytes, shape: tuple[int, int]) -> Pixels:
    """Decode a stream of `shape` (rows, columns) with one component, lossless or near-lossless, 2 to 16 bits.

    Returns uint8 (up to 8 bits) or uint16 [rows, columns]. Raises StreamError if the stream is not one undamaged image
    of that shape.
    """
    found = list(segments(stream))
    frame, scan = only(found, _SOF55, "SOF55"), only(found, SOS, "SOS")
    _, rows, columns, components = parameters("BHHB", frame)
    check_size((rows, columns), shape)
    if components != 1:
        raise StreamError(f"its frame header states {components} components, expected one")
    end = _end(stream, scan.end, restarts=rows * any(segment.marker == _DRI for segment in found))
    pixels = _decoded(stream)
    if _depend_on_more(pixels, stream[:end]):
        raise StreamError("its data end before the last pixel")
    return pixels


def read_info(stream: bytes) -> StreamInfo:
    """Properties that the frame and scan headers state (T.87 C.2.2, C.2.3). Raises StreamError."""
    found = list(segments(stream))
    (precision,) = parameters("B", only(found, _SOF55, "SOF55"))
    *_, near = parameters("BBBB", only(found, SOS, "SOS"))
    return StreamInfo(precision=precision, loss=f"JPEG-LS with NEAR {near}, an error of up to {near}" if near else "")


def _end(stream: bytes, start: int, *, restarts: int) -> int:
    """End of the scan data that begin at `start`; EOI must follow, and after it only padding.

    `restarts`: largest number of restart markers in the data.
    """
    for number, marker in enumerate(_MARKER.finditer(stream, start)):
        if marker[1][0] == EOI:
            # an encapsulated frame may be padded after EOI (PS3.5 A.4)
            if stream[marker.end() :].strip(b"\0"):
                raise StreamError("data other than padding follow EOI (FF D9)")
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
    """Whether the pixels change if a bit 1 is appended to the data; `begun` is the stream up to the end of its data.

    CharLS reads missing bits of the last code as zeros. No pixel of an undamaged stream depends on bits after its data:
    CharLS refuses the bit, or skips it if the data end at the end of its read buffer, and the pixels stay the same.
    After a byte FF, a stuffed bit 0 comes first (T.87 A.1).
    """
    bit = b"\x40" if begun.endswith(b"\xff") else b"\x80"
    try:
        others = _decoded(begun + bit + b"\xff\xd9")
    except StreamError:
        return False
    return not np.array_equal(others, pixels)

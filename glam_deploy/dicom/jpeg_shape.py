"""The shape that a JPEG-LS or JPEG 2000 stream claims, looked at before a decoder reserves memory for it."""

import struct

from glam_deploy.dicom.jpeg_lossless import segments

_SOF55, _SIZ = 0xF7, 0x51


def check_shape(stream: bytes, shape: tuple[int, int]) -> None:
    """Raise ValueError or struct.error unless the image in `stream` has `shape`: (rows, columns), pixels.

    A few bytes of a damaged stream may claim any size (ITU-T T.87 C.2.2, T.800 A.5.1).
    """
    for marker, body, _ in segments(stream):
        if marker == _SOF55:
            claimed = struct.unpack_from(">xHH", body)
            break
        if marker == _SIZ:
            right, bottom, left, top = struct.unpack_from(">xx4I", body)
            claimed = bottom - top, right - left
            break
    else:
        raise ValueError("no frame header")
    if claimed != shape:
        raise ValueError("the frame header disagrees with the DICOM object")

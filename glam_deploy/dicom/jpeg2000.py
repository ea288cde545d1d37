"""JPEG 2000 by the OpenJPEG inside OpenCV, which lets other Python threads go on meanwhile.

pylibjpeg's, the same library, holds Python's lock for as long as it decodes, so that a network in another thread would
wait for it between its stages.
"""

import cv2
import numpy as np

from glam_deploy.records import Pixels

START = b"\xff\x4f\xff\x51"
"""How a codestream begins: SOC and SIZ (ITU-T T.800 A.4.1, A.5.1)."""


def decode(stream: bytes) -> Pixels:
    """The image in a codestream of one component, 8 to 16 bits, unsigned: uint16 [rows, columns].

    Raises ValueError for any other stream, and for one that is damaged where that shows. From now on, in this process,
    OpenCV writes nothing to standard error.
    """
    if not stream.startswith(START):
        raise ValueError("no codestream of JPEG 2000")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    pixels = cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("OpenJPEG refuses the stream")
    return np.asarray(pixels).astype(np.uint16, copy=False)

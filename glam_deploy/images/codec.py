"""Decoding of PNG and TIFF with OpenCV; messages of the decoder are returned instead of printed."""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import cv2
import numpy as np

from glam_deploy.records import Pixels

_STDERR_LOCK = threading.Lock()
"""Held while standard error, which all threads of the process share, is redirected."""
_MESSAGE = re.compile(
    rb"\[ ?(?:WARN|ERROR|FATAL):[^]]*\] global \S+ (?:\S+ OpenCV )?(?:TIFF_Warning |TIFF_Error )?(.*)"
)
"""A line of OpenCV's logger: level, thread and time, file and line, function, and the text of the decoder."""
_LIBRARY = re.compile(rb"(?:libpng|libtiff) (?:warning|error): (.*)|(Corrupt JPEG .*|Premature end of JPEG .*)")
_CONTINUED = re.compile(rb"\s*$|libtiff should be able to decode it|Apparently should be \d")
"""Beginning of a continuation line, directly after the first line of a message; OpenCV writes an empty line."""
_WRAPPERS = ("imdecode_", "TIFF(line")
_LONGEST, _MOST = 200, 10
"""Most characters of a message, and most different messages, that are kept."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Output of a decoder."""

    pixels: Pixels | None
    """[rows, columns] or [rows, columns, channels], channels in the order of OpenCV; None if decoding failed."""
    messages: tuple[str, ...]
    """Warnings and errors. After a warning, pixels may differ from the stored ones."""


def decode(content: bytes) -> Decoded:
    """Decode a PNG or TIFF file without conversion (`cv2.IMREAD_UNCHANGED`); returns the decoder's messages too.

    Standard error of the process is redirected meanwhile; other output to it is written afterwards.
    """
    with _STDERR_LOCK, _logging_on(), _scratch() as file:
        with _redirected(file):
            try:
                pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
                refusals = []
            except cv2.error as error:
                pixels, refusals = None, [" ".join(str(error.err or error).split())[:_LONGEST]]
        file.seek(0)
        messages = _messages(file)
    return Decoded(pixels=pixels, messages=(*messages, *refusals))


def _scratch() -> BinaryIO:
    """Temporary file, in memory if the system supports it, because a container may have no writable folder."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("messages"), "w+b")
    return tempfile.TemporaryFile()


@contextmanager
def _logging_on() -> Iterator[None]:
    """Enable warnings of OpenCV whatever OPENCV_LOG_LEVEL is, because a damaged image may only give a warning."""
    logger = cv2.utils.logging
    before = logger.getLogLevel()
    logger.setLogLevel(logger.LOG_LEVEL_WARNING)
    try:
        yield
    finally:
        logger.setLogLevel(before)


@contextmanager
def _redirected(file: BinaryIO) -> Iterator[None]:
    """Redirect file descriptor 2 to `file`."""
    try:
        before = os.dup(2)
    except OSError:  # standard error is closed
        before = None
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        if before is None:
            os.close(2)
        else:
            os.dup2(before, 2)
            os.close(before)


def _messages(file: BinaryIO) -> list[str]:
    """Messages of the decoder in `file`; other lines are written to standard error."""
    found: dict[str, None] = {}
    after_one = False
    for line in file:
        match = _MESSAGE.match(line) or _LIBRARY.match(line)
        continued = match is None and after_one and _CONTINUED.match(line) is not None
        if match is None and not continued:
            _pass_on(line)
        if match and len(found) < _MOST:
            text = next(group for group in match.groups() if group is not None)
            found[text.decode("ascii", "replace").strip()[:_LONGEST]] = None
        after_one = match is not None or continued
    # messages of OpenCV itself name its source files and add nothing to those of libpng and libtiff
    return [text for text in found if not text.startswith(_WRAPPERS)] or list(found)


def _pass_on(line: bytes) -> None:
    try:
        os.write(2, line)
    except OSError:  # closed
        return

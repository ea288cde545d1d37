"""Decoding a PNG or TIFF with OpenCV, whose messages come back with the image instead of going to the terminal."""

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

_TURN = threading.Lock()
"""Standard error belongs to the process: one thread at a time takes it."""
_MESSAGE = re.compile(
    rb"\[ ?(?:WARN|ERROR|FATAL):[^]]*\] global \S+ (?:\S+ OpenCV )?(?:TIFF_Warning |TIFF_Error )?(.*)"
)
"""What OpenCV's logger writes: level, thread and time, file and line, function, and the text of the decoder."""
_LIBRARY = re.compile(rb"(?:libpng|libtiff) (?:warning|error): (.*)|(Corrupt JPEG .*|Premature end of JPEG .*)")
_CONTINUED = re.compile(rb"\s*$|libtiff should be able to decode it|Apparently should be \d")
"""How a further line of a message begins, with OpenCV an empty one; only right behind its first line."""
_WRAPPERS = ("imdecode_", "TIFF(line")
_LONGEST, _MOST = 200, 10
"""Characters of a message, and different messages, that are kept."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What a decoder made of a file."""

    pixels: Pixels | None
    """[rows, columns] or [rows, columns, channels], channels as OpenCV orders them; None where it refused."""
    messages: tuple[str, ...]
    """Its warnings and errors. With a warning, pixels may be other than those that were stored."""


def decode(content: bytes) -> Decoded:
    """The image in a PNG or TIFF file, as stored (`cv2.IMREAD_UNCHANGED`), and what the decoder says about it.

    Standard error of the process is redirected meanwhile; what others write to it comes out afterwards.
    """
    with _TURN, _logging_on(), _scratch() as file:
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
    """In memory where the system can: a container may have no folder to write to."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("messages"), "w+b")
    return tempfile.TemporaryFile()


@contextmanager
def _logging_on() -> Iterator[None]:
    """OpenCV tells warnings, whatever OPENCV_LOG_LEVEL says: a damaged image may give nothing but a warning."""
    logger = cv2.utils.logging
    before = logger.getLogLevel()
    logger.setLogLevel(logger.LOG_LEVEL_WARNING)
    try:
        yield
    finally:
        logger.setLogLevel(before)


@contextmanager
def _redirected(file: BinaryIO) -> Iterator[None]:
    """File descriptor 2 is `file`."""
    try:
        before = os.dup(2)
    except OSError:  # it is closed
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
    """Of the decoder; other lines go on to standard error."""
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
    # OpenCV's own words, which name its source files, say no more than those of the library
    return [text for text in found if not text.startswith(_WRAPPERS)] or list(found)


def _pass_on(line: bytes) -> None:
    try:
        os.write(2, line)
    except OSError:  # closed
        return

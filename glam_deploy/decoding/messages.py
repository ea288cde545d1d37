"""Messages between the caller and the processes that read images: JSON, preceded by its length, and file descriptors.

What comes from a process that has decoded an image is data only: nothing in it names a class or a function.
"""

import json
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from typing import TypeVar

from glam_deploy.json_records import from_json, parse_json, to_json

T = TypeVar("T")

SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL
"""Of the shared memory with pixels: it cannot change any more, and reading it cannot fail."""
MOST_DESCRIPTORS = 2
_LENGTH = struct.Struct("=L")
_MAX_MESSAGE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Ready:
    """First message of the process that starts the others."""

    missing: str
    """Limits that the others have not got, as of `start.confine`."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """An image to read, and its time limit. The descriptors of the answer's channel and of the content come with it."""

    path: str
    """Of the DICOM file; with a content: the original path, in which the view may be."""
    for_processing: bool
    longest_s: float


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The process that read an image has ended."""

    code: int
    """Its exit code, or the negative number of the signal."""


def send(channel: socket.socket, message: object, *descriptors: int) -> None:
    """Send a record, optionally with file descriptors."""
    content = json.dumps(to_json(message)).encode()
    socket.send_fds(channel, [_LENGTH.pack(len(content))], descriptors)
    channel.sendall(content)


def receive(
    channel: socket.socket, kind: type[T], wait: Callable[[], None] = lambda: None
) -> tuple[T, tuple[int, ...]]:
    """A record and the file descriptors that came with it, which the caller closes.

    `wait`: returns when the channel can be read, and may raise; called before each part. Raises EOFError if the other
    side is gone, and ValueError for a message that is no such record.
    """
    wait()
    try:
        start, descriptors, _, _ = socket.recv_fds(channel, _LENGTH.size, MOST_DESCRIPTORS)
    except ConnectionError:
        raise EOFError from None
    try:
        return from_json(kind, parse_json(_content(channel, start, wait))), tuple(descriptors)
    except BaseException:
        close(descriptors)
        raise


@contextmanager
def sealed_memory(name: str, content: bytes | memoryview) -> Iterator[int]:
    """The descriptor of shared memory with `content`, which nobody can change; `name` is for /proc. Raises OSError."""
    # writing is faster than a mapping, of which each page is faulted in
    with os.fdopen(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb") as file:
        file.write(content)
        file.flush()
        fcntl(file, F_ADD_SEALS, SEALS)
        yield file.fileno()


def close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _content(channel: socket.socket, start: bytes, wait: Callable[[], None]) -> bytes:
    if len(start) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(start)
    if length > _MAX_MESSAGE:
        raise ValueError("the message is too long")
    content = bytearray()
    while len(content) < length:
        wait()
        try:
            part = channel.recv(length - len(content))
        except ConnectionError:
            part = b""
        if not part:
            raise EOFError
        content += part
    return bytes(content)

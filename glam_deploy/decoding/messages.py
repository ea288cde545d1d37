"""Messages between the caller and the processes that read images: JSON, preceded by its length, and file descriptors.

What comes from a process that has decoded an image is data only: nothing in it names a class or a function.
"""

import json
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from types import MappingProxyType
from typing import TypeVar

from glam_deploy import errors
from glam_deploy.errors import GlamError, Remedy
from glam_deploy.json_records import from_json, parse_json, to_json
from glam_deploy.records import Mammogram, Notice, Pixels, Source, View

T = TypeVar("T")

SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL
"""Of the shared memory with pixels: it cannot change any more, and reading it cannot fail."""
MOST_DESCRIPTORS = 2
_LENGTH = struct.Struct("=L")
_MAX_MESSAGE = 1 << 20
_ERRORS: Mapping[str, type[GlamError]] = MappingProxyType(
    {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, GlamError)}
)


@dataclass(frozen=True, kw_only=True)
class Ready:
    """First message of the process that starts the others."""

    missing: str
    """As of `start.confine`."""


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


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An error in place of an image."""

    kind: str
    """Name of its class in `glam_deploy.errors`."""
    message: str
    remedies: tuple[str, ...]
    """Names of its remedies."""

    @classmethod
    def of(cls, error: GlamError) -> "Refusal":
        return cls(
            kind=type(error).__name__, message=str(error.args[0]), remedies=tuple(each.name for each in error.remedies)
        )

    def error(self) -> GlamError:
        """Raises KeyError for names that are not there."""
        return _ERRORS[self.kind](self.message, *(Remedy[name] for name in self.remedies))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a process says of an image: that it was refused, or all but the pixels, whose descriptor comes with it."""

    refusal: Refusal | None = None
    view: str = ""
    horizontal_flip: bool = False
    half_turn: bool = False
    source: Source | None = None
    notices: tuple[Notice, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = ""

    @classmethod
    def of(cls, mammogram: Mammogram) -> "Answer":
        return cls(
            view=mammogram.view.value,
            horizontal_flip=mammogram.horizontal_flip,
            half_turn=mammogram.half_turn,
            source=mammogram.source,
            notices=mammogram.notices,
            shape=mammogram.pixels.shape,
            dtype=mammogram.pixels.dtype.str,
        )

    def mammogram(self, pixels: Pixels) -> Mammogram:
        """Raises ValueError without a source, and for a view that is not there."""
        if self.source is None:
            raise ValueError("the answer has no source")
        return Mammogram(
            pixels=pixels,
            view=View(self.view),
            horizontal_flip=self.horizontal_flip,
            half_turn=self.half_turn,
            source=self.source,
            notices=self.notices,
        )


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

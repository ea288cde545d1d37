"""The process that reads images one after another, within the limits of `start`.

Messages are pickled and preceded by their length; contents of files and pixels are in shared memory.
"""

import math
import os
import pickle
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from glam_deploy.decoding.start import MEMORY_LIMIT
from glam_deploy.errors import GlamError, InputError, InternalError, Remedy, fault
from glam_deploy.reading import read_under_name
from glam_deploy.records import Mammogram, picklable

SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL
"""Of the shared memory with pixels: it cannot change any more, and reading it cannot fail."""
_LENGTH = struct.Struct("=L")
_MAX_MESSAGE = 1 << 20
_GRACE_S = 5
"""The process ends itself this long after its time limit, when no caller waits for it any more."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """First message of the process."""

    missing: str
    """As of `start.confine`."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """An image to read, and its time limit. The file descriptor of its content may come with the message."""

    path: str
    """Of the DICOM file; with a descriptor: the original path, in which the view may be."""
    for_processing: bool
    longest_s: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A view that was read; the file descriptor of its pixels comes with the message."""

    mammogram: Mammogram
    """Without pixels."""
    shape: tuple[int, ...]
    dtype: str


class _Pickler(pickle.Pickler):
    """Writes a member of an enumeration as its class and value, as Python 3.11.4 and later do by themselves.

    Python 3.11.2, which Debian 12 has, writes a call of `getattr`, which the worker rejects.
    """

    def reducer_override(self, value: object) -> Any:
        return (type(value), (value.value,)) if isinstance(value, Enum) else NotImplemented


def packed(value: object) -> bytes:
    """A record or an error as a message."""
    out = BytesIO()
    _Pickler(out).dump(value)
    return out.getvalue()


def send(channel: socket.socket, content: bytes, descriptor: int | None = None) -> None:
    """Send a message, optionally with a file descriptor."""
    socket.send_fds(channel, [_LENGTH.pack(len(content))], [] if descriptor is None else [descriptor])
    channel.sendall(content)


def receive(channel: socket.socket, wait: Callable[[], None] = lambda: None) -> tuple[bytes, int | None]:
    """The content and the file descriptor of one message. Raises EOFError if the other side is gone.

    `wait`: returns when the channel can be read, and may raise; called before each part.
    """
    try:
        wait()
        start, descriptors, _, _ = socket.recv_fds(channel, _LENGTH.size, 1)
        (length,) = _LENGTH.unpack(start) if len(start) == _LENGTH.size else (0,)
        content = bytearray()
        while len(content) < length <= _MAX_MESSAGE:
            wait()
            part = channel.recv(length - len(content))
            if not part:
                raise EOFError
            content += part
    except ConnectionError:
        raise EOFError from None
    if not content:
        raise EOFError
    return bytes(content), descriptors[0] if descriptors else None


def serve(channel: socket.socket, missing: str, *, niceness: int) -> None:
    """Read images until the caller closes the channel. `missing`: as of `Ready`; `niceness`: added once ready."""
    from glam_deploy.dicom import read

    read.silence_pydicom()
    os.nice(niceness)
    send(channel, packed(Ready(missing=missing)))
    while True:
        try:
            content, descriptor = receive(channel)
        except EOFError:
            return
        _answer(channel, pickle.loads(content), descriptor)
        if descriptor is not None:
            os.close(descriptor)


def _answer(channel: socket.socket, request: Request, descriptor: int | None) -> None:
    signal.alarm(math.ceil(request.longest_s) + _GRACE_S)
    try:
        mammogram = _read(request, descriptor)
    except GlamError as error:
        send(channel, packed(error))
    except MemoryError:
        reason = f"its decoder needed more than {MEMORY_LIMIT >> 30} GiB of memory"
        send(channel, packed(InputError(reason, Remedy.EXPORT_AGAIN)))
    except Exception as error:  # its text may quote the DICOM header
        send(channel, packed(InternalError(f"a fault while reading it: {fault(error)}")))
    else:
        _send_view(channel, mammogram)
    finally:
        signal.alarm(0)


def _read(request: Request, descriptor: int | None) -> Mammogram:
    if descriptor is not None:
        content = Path(f"/proc/self/fd/{descriptor}")
        return read_under_name(content, PurePath(request.path), for_processing=request.for_processing)
    from glam_deploy.dicom.read import read_view

    return read_view(Path(request.path), for_processing=request.for_processing)


def _send_view(channel: socket.socket, mammogram: Mammogram) -> None:
    pixels = mammogram.pixels
    bare = replace(mammogram, pixels=None, source=picklable(mammogram.source))  # type: ignore[arg-type]
    answer = Answer(mammogram=bare, shape=pixels.shape, dtype=pixels.dtype.str)
    # writing is faster than a mapping, of which each page is faulted in
    with os.fdopen(os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb") as memory:
        memory.write(np.ascontiguousarray(pixels).data.cast("B"))
        memory.flush()
        fcntl(memory, F_ADD_SEALS, SEALS)
        send(channel, packed(answer), memory.fileno())

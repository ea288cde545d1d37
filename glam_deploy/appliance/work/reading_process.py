"""The child process that reads views for the worker, one after another, within limits of memory and time.

It ends with the worker. Messages are pickled and preceded by their length; pixels are in shared memory.
"""

import math
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from glam_deploy.appliance.process import die_with_parent
from glam_deploy.errors import GlamError, InternalError, fault
from glam_deploy.records import Mammogram
from glam_deploy.runtime.overlap import NICENESS

MEMORY_LIMIT = 4 << 30
"""Bytes of data (RLIMIT_DATA) that the process may have; the largest image that is read (10,000 x 10,000) takes 1.6 GB.
"""
READY = "ready"
_LENGTH = struct.Struct("=L")
_MAX_MESSAGE = 1 << 20
_GRACE_S = 5
"""The process ends itself this long after its time limit, when no worker waits for it any more."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A view to read, and its time limit."""

    path: str
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


def main() -> None:
    """Read views until the worker closes the channel; arguments: the channel's descriptor, the worker's process id."""
    die_with_parent(int(sys.argv[2]))()
    channel = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold patient data
    from glam_deploy.dicom import read

    read.silence_pydicom()
    os.nice(NICENESS)
    send(channel, packed(READY))
    while True:
        try:
            content, _ = receive(channel)
        except EOFError:
            return
        _serve(channel, pickle.loads(content))


def _serve(channel: socket.socket, request: Request) -> None:
    signal.alarm(math.ceil(request.longest_s) + _GRACE_S)
    try:
        mammogram = _read(request)
    except GlamError as error:
        send(channel, packed(error))
    except Exception as error:  # its text may quote the DICOM header
        send(channel, packed(InternalError(f"a fault while reading it: {fault(error)}")))
    else:
        _send_view(channel, mammogram)
    finally:
        signal.alarm(0)


def _read(request: Request) -> Mammogram:
    from glam_deploy.dicom.read import read_view

    return read_view(Path(request.path), for_processing=request.for_processing)


def _send_view(channel: socket.socket, mammogram: Mammogram) -> None:
    pixels = mammogram.pixels
    bare = replace(mammogram, pixels=None)  # type: ignore[arg-type]
    answer = Answer(mammogram=bare, shape=pixels.shape, dtype=pixels.dtype.str)
    descriptor = os.memfd_create("pixels")
    try:
        os.ftruncate(descriptor, pixels.nbytes)
        with mmap.mmap(descriptor, pixels.nbytes) as memory:
            memory.write(np.ascontiguousarray(pixels).data.cast("B"))
        send(channel, packed(answer), descriptor)
    finally:
        os.close(descriptor)

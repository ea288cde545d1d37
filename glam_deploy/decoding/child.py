"""Reading of each image in a process of its own, a copy of one that has imported what reading needs.

The first process never sees an image: it starts the others, one after another, and says how each ended. A process that
a decoder has taken over can lie about its own image only, because it ends with it.
"""

import importlib
import math
import os
import signal
import socket
import warnings
from contextlib import suppress
from pathlib import Path, PurePath

import numpy as np

from glam_deploy.decoding import start
from glam_deploy.decoding.answers import Answer, Refusal
from glam_deploy.decoding.messages import Ended, Ready, Request, close, receive, sealed_memory, send
from glam_deploy.errors import GlamError, InputError, InternalError, Remedy, fault
from glam_deploy.reading import read_under_name
from glam_deploy.records import Mammogram

DECODERS = ("imagecodecs._jpeg8", "imagecodecs._jpeg2k", "imagecodecs._jpegls", "imagecodecs._imcd")
"""Modules that are otherwise imported with the first image of their kind."""
_GRACE_S = 5
"""A process ends itself this long after its time limit, when no caller waits for it any more."""


def serve(control: socket.socket, *, niceness: int) -> None:
    """Read images until the caller closes the channel. `niceness`: added once ready."""
    with suppress(ModuleNotFoundError):  # without the extra "dicom" it reads pictures
        from glam_deploy.dicom.read import silence_pydicom

        silence_pydicom()
    for name in DECODERS:
        with suppress(ImportError):  # the image that needs it will say so
            importlib.import_module(name)
    # the threads of libraries that have been imported are idle, and the copy does not need them
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    os.nice(niceness)
    missing = _what_is_missing()
    send(control, Ready(missing=missing))
    while True:
        try:
            request, (channel, *content) = receive(control, Request)
        except EOFError:
            return
        code = _run_in_copy(control, missing, request, channel, *content)
        close([channel, *content])
        send(control, Ended(code=code))


def _what_is_missing() -> str:
    """As `start.confine` returns it, in a process that is confined for that."""
    ours, theirs = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(theirs, start.confine(os.getppid()).encode())
        os._exit(0)
    os.close(theirs)
    os.waitpid(pid, 0)
    with os.fdopen(ours) as said:
        return said.read()


def _run_in_copy(
    control: socket.socket, missing: str, request: Request, channel: int, content: int | None = None
) -> int:
    """Read an image in a copy of this process; its exit code, or the negative number of the signal that ended it.

    `missing`: the limits that the copy may lack, as of `Ready`; with fewer limits it ends before it sees the image.
    """
    parent = os.getpid()
    if (pid := os.fork()) == 0:
        code = 1
        try:
            control.close()
            _leave_streams()
            image = Path(request.path) if content is None else None
            if start.confine(parent, image) == missing:
                _answer(socket.socket(fileno=channel), request, content)
                code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _leave_streams() -> None:
    """Give up the input and output of the caller, which may be a terminal."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _answer(channel: socket.socket, request: Request, content: int | None) -> None:
    signal.alarm(math.ceil(request.longest_s) + _GRACE_S)
    try:
        _send_view(channel, _read(request, content))
        return
    except GlamError as error:
        refusal = Refusal.of(error)
    except MemoryError:
        reason = f"its decoder needed more than {start.MEMORY_LIMIT >> 30} GiB of memory"
        refusal = Refusal.of(InputError(reason, Remedy.EXPORT_AGAIN))
    except Exception as error:  # its text may quote the DICOM header
        refusal = Refusal.of(InternalError(f"a fault while reading it: {fault(error)}"))
    send(channel, Answer(refusal=refusal))


def _read(request: Request, content: int | None) -> Mammogram:
    if content is not None:
        path = Path(f"/proc/self/fd/{content}")
        return read_under_name(path, PurePath(request.path), for_processing=request.for_processing)
    from glam_deploy.dicom.read import read_view

    return read_view(Path(request.path), for_processing=request.for_processing)


def _send_view(channel: socket.socket, mammogram: Mammogram) -> None:
    pixels = np.ascontiguousarray(mammogram.pixels).data.cast("B")
    with sealed_memory("pixels", pixels) as descriptor:
        send(channel, Answer.of(mammogram), descriptor)

"""Reading of images in child processes, so that a decoder that crashes, hangs or is taken over costs one image.

A first process is kept, and starts one for each image. Pixels come back through shared memory. The other side is
`child`.
"""

import errno
import logging
import mmap
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from fcntl import F_GET_SEALS, fcntl
from functools import cache, partial
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np

from glam_deploy.decoding import messages
from glam_deploy.decoding.answers import Answer
from glam_deploy.decoding.messages import SEALS, Ended, Ready, Request, receive, send
from glam_deploy.decoding.start import MEMORY_LIMIT
from glam_deploy.errors import InputError, Remedy
from glam_deploy.processes import python_command
from glam_deploy.records import Mammogram, Pixels
from glam_deploy.runtime.overlap import NICENESS

log = logging.getLogger(__name__)
T = TypeVar("T")

START_S = 120.0
"""Most time that a new process takes for its imports, while the network keeps the machine busy."""
END_S = 5.0
"""Most time that a process takes to end after its answer."""
POLL_S = 0.1
"""Between two checks whether the caller is to stop."""
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Variables without which NumPy would start threads, which a copy of the process does not have."""
_VARIABLES = frozenset({"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LANGUAGE", "VIRTUAL_ENV"})
_VARIABLES_OF = ("LC_", "LD_", "PYTHON", "MALLOC_", "GLIBC_", "OPENCV_")
"""What Python and libraries need to start; others may be tokens and passwords, which a decoder could tell."""
_PROGRAM = "from glam_deploy.decoding.start import main; main()"
MAX_TRIES = 2
"""An image whose process dies is read once more, since the process may have been killed from outside."""


class Stopped(Exception):
    """The caller was asked to stop while an image was read."""


class NotStarted(OSError):
    """The process cannot be started, or ended before it could read."""


class _Ended(Exception):
    """The process ended. `str`: how."""


class _Overdue(Exception):
    """The process took too long, and was killed."""


class ViewReader:
    """Reads images until closed; used by one thread at a time."""

    def __init__(self, *, longest_s: float, stop: threading.Event | None = None, niceness: int = NICENESS) -> None:
        """`longest_s`: limit of time to read an image. When `stop` is set, reading ends with Stopped. `niceness`: is
        added to that of this process.
        """
        self._longest_s, self._stop, self._niceness = longest_s, stop or threading.Event(), niceness
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._ready: Ready | None = None
        # the kernel kills the process with the thread that started it
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="reading")

    def start(self) -> None:
        """Start the process in advance, so that it can make its imports. Raises NotStarted."""
        if self._process is None:
            try:
                ours, theirs = socket.socketpair()
                with theirs:
                    number = theirs.fileno()
                    command = python_command("-c", _PROGRAM, number, os.getpid(), self._niceness)
                    self._process = self._starter.submit(
                        subprocess.Popen[bytes],
                        command,
                        pass_fds=[number],
                        stdin=subprocess.DEVNULL,
                        env=_environment(os.environ),
                        start_new_session=True,  # without the caller's terminal
                    ).result()
            except OSError as error:
                raise NotStarted(error.errno, f"no process for a decoder can be started: {error.strerror}") from None
            self._channel, self._ready = ours, None

    def wait_until_ready(self) -> Ready:
        """Wait for the imports of the process, which is started if there is none. Raises NotStarted and Stopped."""
        self.start()
        if self._ready is None:
            try:
                assert self._channel
                ready, _ = self._receive(self._channel, Ready, START_S)
            except EOFError:
                how = _how(self._reap())
                raise NotStarted(errno.ECHILD, f"the process for decoders ended {how} before it was ready") from None
            except _Overdue:
                raise NotStarted(errno.ETIME, f"the process for decoders was not ready after {START_S:g} s") from None
            self._ready = ready
            if ready.missing:
                _warn(ready.missing)
        return self._ready

    def read(self, path: Path, *, for_processing: bool) -> Mammogram:
        """As `dicom.read.read_view`.

        Raises also InputError if reading takes too long, needs too much memory or ends the process; Stopped; and
        NotStarted.
        """
        return self._read(Request(path=str(path), for_processing=for_processing, longest_s=self._longest_s), None)

    def read_content(self, data: bytes, name: PurePath, *, for_processing: bool) -> Mammogram:
        """The mammogram in the content of a file, as `reading.read_under_name` gives it. Raises as `read`, and OSError
        if there is no memory for the content.
        """
        request = Request(path=str(name), for_processing=for_processing, longest_s=self._longest_s)
        with messages.sealed_memory("content", data) as descriptor:
            return self._read(request, descriptor)

    def kill(self) -> None:
        """Kill the process; the next image is read by a new one."""
        if self._process:
            self._process.kill()
            self._reap()

    def close(self) -> None:
        """Kill the process, for good."""
        self.kill()
        self._starter.shutdown()

    def _read(self, request: Request, content: int | None) -> Mammogram:
        """`content`: descriptor of the file's content."""
        ends = []
        for _ in range(MAX_TRIES):
            self.wait_until_ready()
            try:
                return self._request_view(request, content)
            except _Ended as end:
                ends.append(str(end))
            except _Overdue:
                log.error("reading an image took longer than %g s and was stopped", self._longest_s)
                raise InputError(f"reading it took longer than {self._longest_s:g} s", Remedy.READ_LONGER) from None
        log.error("reading an image ended its process twice (%s)", ends[-1])
        raise InputError(
            f"its decoder ended {ends[-1]}: it crashed, or {MEMORY_LIMIT >> 30} GiB of memory were not enough",
            Remedy.EXPORT_AGAIN,
        )

    def _request_view(self, request: Request, content: int | None) -> Mammogram:
        """Raises _Ended, _Overdue and Stopped."""
        assert self._channel
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, suppress(BrokenPipeError, ConnectionResetError):  # the missing answer shows its end
                send(self._channel, request, theirs.fileno(), *([] if content is None else [content]))
            try:
                answer, descriptors = self._receive(ours, Answer, self._longest_s)
            except EOFError:
                raise _Ended(_how(self._end_of_copy())) from None
        with self._killing_for_other_answers(), _closing(descriptors):
            made = (
                answer.refusal.error()
                if answer.refusal
                else answer.mammogram(_pixels(descriptors, answer), PurePath(request.path).name)
            )
        self._end_of_copy()
        if isinstance(made, Mammogram):
            return made
        raise made

    def _end_of_copy(self) -> int:
        """How the process of an image ended; one that does not end is killed. Raises _Ended without the first one."""
        assert self._channel
        try:
            return self._receive(self._channel, Ended, END_S)[0].code
        except _Overdue:
            return -signal.SIGKILL
        except EOFError:
            raise _Ended(_how(self._reap())) from None

    def _receive(self, channel: socket.socket, kind: type[T], longest_s: float) -> tuple[T, tuple[int, ...]]:
        """The next message. Raises EOFError, _Overdue, Stopped, and InputError for one of another form."""
        with self._killing_for_other_answers():
            return receive(channel, kind, partial(self._wait, channel, time.monotonic() + longest_s))

    @contextmanager
    def _killing_for_other_answers(self) -> Iterator[None]:
        """Kill a process whose answer is not one of `child`."""
        try:
            yield
        except (EOFError, Stopped, _Overdue):
            raise
        except Exception as error:
            self.kill()
            log.error("the process for decoders gave an answer of another form (%s)", type(error).__name__)
            raise InputError("its decoder gave back something else than an image", Remedy.EXPORT_AGAIN) from error

    def _wait(self, channel: socket.socket, deadline: float) -> None:
        """Return when a process has sent something; `deadline` in seconds of the monotonic clock."""
        poll = select.poll()  # `select` takes no descriptor above 1023, which a server can have
        poll.register(channel, select.POLLIN)
        while not poll.poll(POLL_S * 1e3):
            if self._stop.is_set():
                self.kill()
                raise Stopped
            if time.monotonic() > deadline:
                self.kill()
                raise _Overdue

    def _reap(self) -> int:
        assert self._process and self._channel
        self._channel.close()
        try:
            code = self._process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return code


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in ours.items() if name in _VARIABLES or name.startswith(_VARIABLES_OF)}
    return kept | _ONE_THREAD


@cache
def _warn(missing: str) -> None:
    """Log once in a process which limits a decoder has not got."""
    log.warning("decoders have limits of memory and time here, but %s", missing)


def _how(code: int) -> str:
    """How a process ended, by its exit code."""
    if code >= 0:
        return f"with exit code {code}"
    names = {each.value: each.name for each in signal.Signals}  # most real-time signals have none
    return f"by signal {names.get(-code, -code)}"


class ViewReaders:
    """Readers for several threads, each with a process of its own; a further one is made when all are in use."""

    def __init__(self, *, longest_s: float, stop: threading.Event) -> None:
        """Arguments as those of `ViewReader`."""
        self._new = partial(ViewReader, longest_s=longest_s, stop=stop)
        self._first = self._new()
        self._all, self._idle = [self._first], deque([self._first])
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the first process in advance. Raises NotStarted."""
        self._first.start()

    def read(self, path: Path, *, for_processing: bool) -> Mammogram:
        """As `ViewReader.read`."""
        with self._lock:
            if not self._idle:
                self._all.append(self._new())
                self._idle.append(self._all[-1])
            reader = self._idle.pop()
        try:
            return reader.read(path, for_processing=for_processing)
        finally:
            self._idle.append(reader)

    def close(self) -> None:
        """Kill the processes. No thread may be reading."""
        for reader in self._all:
            reader.close()


@contextmanager
def _closing(descriptors: Sequence[int]) -> Iterator[None]:
    try:
        yield
    finally:
        messages.close(descriptors)


def _pixels(descriptors: Sequence[int], answer: Answer) -> Pixels:
    """The shared memory as an array, which keeps it alive.

    Raises ValueError for memory of another size, and if a process could still change it.
    """
    (descriptor,) = descriptors
    if (size := os.fstat(descriptor).st_size) != answer.byte_count():
        raise ValueError(f"the memory has {size} bytes")
    if fcntl(descriptor, F_GET_SEALS) & SEALS != SEALS:
        raise ValueError("the memory is not sealed")
    memory = mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE)
    return np.frombuffer(memory, answer.dtype).reshape(answer.shape)

"""Reading of views in a child process, so that a decoder that crashes, hangs or needs too much memory costs one view.

The process is kept for the next view. Pixels come back through shared memory. The other side is `reading_process`.
"""

import logging
import mmap
import os
import pickle
import select
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from glam_deploy.appliance.work.reading_process import MEMORY_LIMIT, Answer, Request, receive, send
from glam_deploy.errors import DicomError
from glam_deploy.processes import python_command
from glam_deploy.records import Mammogram, Pixels

log = logging.getLogger(__name__)

START_S = 120.0
"""Most time that a new process takes for its imports, while the network keeps the machine busy."""
POLL_S = 0.1
"""Between two checks whether the worker is to stop."""
_PROGRAM = "from glam_deploy.appliance.work.reading_process import main; main()"
MAX_TRIES = 2
"""A view whose process dies is read once more, since the process may have been killed from outside."""


class Stopped(Exception):
    """The worker was asked to stop while it processed a job."""


class ViewReader:
    """Reads views until closed; used by one thread at a time."""

    def __init__(self, *, longest_s: float, stop: threading.Event) -> None:
        """`longest_s`: limit of time to read a view. When `stop` is set, reading ends with Stopped."""
        self._longest_s, self._stop = longest_s, stop
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._is_ready = False
        # the kernel kills the process with the thread that started it
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="reading")

    def start(self) -> None:
        """Start the process in advance, so that it can make its imports. Raises OSError if it cannot be started."""
        if self._process is None:
            ours, theirs = socket.socketpair()
            with theirs:
                number = theirs.fileno()
                command = python_command("-c", _PROGRAM, number, os.getpid())
                self._process = self._starter.submit(
                    subprocess.Popen[bytes], command, pass_fds=[number], stdin=subprocess.DEVNULL
                ).result()
            self._channel, self._is_ready = ours, False

    def read(self, path: Path, *, for_processing: bool) -> Mammogram:
        """As `read_view`.

        Raises also DicomError if reading takes too long or ends the process, Stopped, and OSError if no process can be
        started.
        """
        request = Request(path=str(path), for_processing=for_processing, longest_s=self._longest_s)
        for _ in range(MAX_TRIES):
            try:
                return self._request_view(request)
            except EOFError:
                code = self._reap()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        log.error("reading a view ended its process twice (%s)", how)
        raise DicomError(
            f"its decoder crashed or needed more than {MEMORY_LIMIT >> 30} GiB ({how}): export the object again"
        )

    def close(self) -> None:
        """Kill the process."""
        if self._process:
            self._process.kill()
            self._reap()
        self._starter.shutdown()

    def _request_view(self, request: Request) -> Mammogram:
        self.start()
        assert self._channel
        if not self._is_ready:
            self._receive_message(START_S)
            self._is_ready = True
        with suppress(BrokenPipeError, ConnectionResetError):  # the missing answer shows its end
            send(self._channel, pickle.dumps(request))
        answer, descriptor = self._receive_message(self._longest_s)
        if not isinstance(answer, Answer):
            raise answer
        return replace(answer.mammogram, pixels=_pixels(descriptor, answer))

    def _receive_message(self, longest_s: float) -> tuple[Any, int | None]:
        """The next message of the process. Raises EOFError if it has ended; kills it if it takes too long."""
        assert self._channel
        content, descriptor = receive(self._channel, partial(self._wait, time.monotonic() + longest_s, longest_s))
        return _Unpickler(BytesIO(content)).load(), descriptor

    def _wait(self, deadline: float, longest_s: float) -> None:
        """Return when the process has sent something; `deadline` in seconds of the monotonic clock."""
        assert self._process and self._channel
        while not select.select([self._channel], [], [], POLL_S)[0]:
            if self._stop.is_set():
                raise Stopped
            if time.monotonic() > deadline:
                self._process.kill()
                self._reap()
                log.error("reading a view took more than %g s and was stopped", longest_s)
                raise DicomError(f"reading it took more than {longest_s:g} s (worker.longest_read_s): export it again")

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


class ViewReaders:
    """Readers for several threads, each with a process of its own; a further one is made when all are in use."""

    def __init__(self, *, longest_s: float, stop: threading.Event) -> None:
        """Arguments as those of `ViewReader`."""
        self._new = partial(ViewReader, longest_s=longest_s, stop=stop)
        self._first = self._new()
        self._all, self._idle = [self._first], deque([self._first])
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the first process in advance. Raises OSError if it cannot be started."""
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


class _Unpickler(pickle.Unpickler):
    """Accepts glam-deploy's own records and errors only, since the process has decoded data of unknown senders."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("glam_deploy.records", "glam_deploy.errors", Answer.__module__) and "." not in name:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"an answer of the reading process holds {module}.{name}")


def _pixels(descriptor: int | None, answer: Answer) -> Pixels:
    """The shared memory as an array, which keeps it alive."""
    assert descriptor is not None
    try:
        memory = mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE)
    finally:
        os.close(descriptor)
    return np.frombuffer(memory, answer.dtype).reshape(answer.shape)

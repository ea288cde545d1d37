"""Set-up of a process of the appliance: its log, the rights of its files, and its heartbeats."""

import logging
import math
import os
import resource
import sqlite3
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from glam_deploy.errors import InternalError, fault

_QUOTING = ("pydicom", "pynetdicom", "highdicom", "openjpeg", "httpx", "httpcore", "urllib3")
"""Libraries whose own log may contain patient names or paths of images."""


class FallbackHandler(logging.Handler):
    """Writes warnings and errors to standard error in a process that has not configured logging.

    Python's own fallback (`logging.lastResort`) does not act here, because the package's logger has a NullHandler.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers and logging.lastResort:
            logging.lastResort.handle(record)


RECURRING: Mapping[str, object] = MappingProxyType({"recurring": True})
"""`extra` of the log call for an error that recurs as long as its cause, such as a full disk."""
RECURRENCE_S = 60.0


class RecurrenceFilter(logging.Filter):
    """Lets a recurring error of a process through at once, then once in RECURRENCE_S, by its text without values."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds, only forward."""
        super().__init__()
        self._clock, self._lock = clock, threading.Lock()
        self._logged: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "recurring", False):
            return True
        with self._lock:
            now = self._clock()
            if now - self._logged.get(record.msg, -math.inf) < RECURRENCE_S:
                return False
            self._logged[record.msg] = now
        return True


def configure_logging(role: str) -> None:
    """Send `logging` and uncaught exceptions of threads to standard error, one line an event, and silence warnings.

    No line holds a patient's name, number or date: libraries that may quote these are muted.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format=f"%(asctime)s {role} %(levelname)s %(message)s", force=True
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(RecurrenceFilter())
        handler.addFilter(_is_ours)  # pydicom sets the level of its logger when it is imported, which may be later
    package = logging.getLogger("glam_deploy")
    package.handlers.clear()  # the command line's own handler would write each line a second time
    package.setLevel(logging.INFO)
    warnings.simplefilter("ignore")
    threading.excepthook = lambda arguments: _log_thread_end(arguments.exc_value)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] not in _QUOTING


def _log_thread_end(error: BaseException | None) -> None:
    """Log the exception that ended a thread, without its text."""
    if error:
        logging.getLogger(__name__).error("a thread ended with %s", fault(error))


_UMASK = 0o077


def keep_to_this_user() -> None:
    """Let files of this process and its children be readable by this user only, and none be a core file, which would
    hold images, tokens and keys.
    """
    os.umask(_UMASK)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


HEARTBEAT_S = 1.0


def watch_threads(
    send_heartbeats: Callable[[], None], threads: Sequence[threading.Thread], stop: threading.Event, *, stop_s: float
) -> None:
    """Send heartbeats once a second until `stop`, then wait for the threads, up to `stop_s` seconds.

    Raises InternalError if a thread has ended before.
    """
    while not stop.is_set():
        if not all(thread.is_alive() for thread in threads) and not stop.is_set():
            raise InternalError("a thread of this process has ended: see the log for the reason")
        try:
            send_heartbeats()
        except sqlite3.OperationalError as error:
            logging.getLogger(__name__).error("state.db cannot be written (%s)", error, extra=RECURRING)
        stop.wait(HEARTBEAT_S)
    deadline = time.monotonic() + stop_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))

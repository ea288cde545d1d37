"""Exclusive lock on the folder of a bundle, which the system releases when the process ends."""

import errno
import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Context with an exclusive lock on the bundle's folder, which is released when the process ends.

    By flock(2). Windows locks no folders: there it is a lock of a file that stands for the folder in the user's folder
    of temporary files, so it does not exclude other users. If another process has the lock, `on_wait` is called, or a
    warning logged without it. Raises OSError if the folder cannot be opened.
    """
    handle = _opened(folder)
    try:
        if not _taken(handle):
            on_wait() if on_wait else log.warning("%s is locked by another process; waiting until it ends", folder)
            _take(handle)
        yield
    finally:
        os.close(handle)


if sys.platform == "win32":

    def _opened(folder: Path) -> int:
        folder.stat()
        name = hashlib.sha256(os.fsencode(os.path.normcase(os.path.realpath(folder)))).hexdigest()
        return os.open(Path(tempfile.gettempdir(), f"glam-deploy-{name}.lock"), os.O_RDWR | os.O_CREAT | os.O_BINARY)

    def _taken(handle: int, kind: int = msvcrt.LK_NBLCK) -> bool:
        try:
            msvcrt.locking(handle, kind, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLOCK):  # another process has it
                return False
            raise
        return True

    def _take(handle: int) -> None:
        while not _taken(handle, msvcrt.LK_LOCK):  # LK_LOCK gives up after ten seconds
            pass

else:

    def _opened(folder: Path) -> int:
        return os.open(folder, os.O_RDONLY)

    def _taken(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX)

"""Opening of regular files only, because opening a FIFO blocks, and a device may have no end.

And the accounts besides this one that may change a file or folder.
"""

import errno
import io
import itertools
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")

if sys.platform == "win32":
    _READING = os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT
else:
    _READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class _File(io.FileIO):
    """A file that raises BlockingIOError where it would have to wait, as /proc/kmsg does, which counts as regular.

    FileIO returns None there, which loops over a file take for more to come.
    """

    def readinto(self, buffer: Any, /) -> int:
        number: int | None = super().readinto(buffer)
        return _required(number)

    def readall(self) -> bytes:
        return _required(super().readall())


def _required(found: T | None) -> T:
    if found is None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return found


def open_regular(path: Path) -> io.BufferedReader:
    """Open `path`, or the file that it links to, for reading. Raises OSError, also for a file that is not regular.

    The type is checked before opening, which may act on a device and fails for a socket (ENXIO, open(2)), and again
    after it (O_NONBLOCK), because the file can be replaced in between. Reading raises BlockingIOError, an OSError, for
    a file of the kernel that has nothing to read now.
    """
    _require_regular(path.stat().st_mode, path)
    file: io.BufferedReader = io.BufferedReader(_File(_opened(path, _READING), "rb"))
    try:
        _require_held(path, os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


_held: dict[Path, list[tuple[int, int]]] = {}
"""Absolute path -> device and inode (stat(2)) of the files that it was said to lead to."""
_holding = threading.Lock()


@contextmanager
def held(path: Path, identity: tuple[int, int]) -> Iterator[None]:
    """Context in which `path` leads to the same file, of this device and inode, in all threads of this process.

    It leads to another one where a link on the way or a folder above it is exchanged, which neither file shows;
    `open_regular` raises OSError (ESTALE) then.
    """
    name = path.absolute()
    with _holding:
        _held.setdefault(name, []).append(identity)
    try:
        yield
    finally:
        with _holding:
            _held[name].remove(identity)
            if not _held[name]:
                del _held[name]


def _require_held(path: Path, found: os.stat_result) -> None:
    expected = _held.get(path.absolute()) if _held else None
    if expected and (found.st_dev, found.st_ino) not in expected:
        raise OSError(errno.ESTALE, "it was exchanged while it was read", str(path))


def _opened(path: Path, flags: int, mode: int = 0o777) -> int:
    """The descriptor of a regular file. Raises OSError."""
    number = os.open(path, flags, mode)
    try:
        _require_regular(os.fstat(number).st_mode, path)
    except BaseException:
        os.close(number)
        raise
    return number


def _require_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        os.scandir(path).close()  # the reason of a folder that could not be searched, and stands for its files
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, NOT_REGULAR, str(path))


def open_lock(path: Path) -> io.BufferedRandom:
    """Open the file of a lock, made if missing, for `fcntl.flock`; neither a link nor anything but a file is accepted.

    Not on Windows. Raises OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    return os.fdopen(_opened(path, flags, 0o600), "r+b")


def try_lock(file: IO[bytes], *, shared: bool = False) -> bool:
    """Lock an open file (flock(2), not on Windows) until it is closed; False if another process has the lock.

    `shared`: several processes may have it so.
    """
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """The bytes of the file. Raises OSError as `open_regular` does, and for more than `limit` bytes."""
    with open_regular(path) as file:
        content = file.read() if limit is None else file.read(limit + 1)
    if limit is not None and len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
    return content


def require_small(*paths: Path) -> None:
    """Check files that a library opens by name, as OpenSSL does, which waits for a pipe and reads a device without end.

    Raises OSError as `read_regular` with `SMALL_FILE`.
    """
    for path in paths:
        read_regular(path, SMALL_FILE)


def unused(path: Path) -> Path:
    """`path`, or one beside it with a number that does not exist: for a command in a message that would replace it."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return path if not path.exists() else next(each for each in numbered if not each.exists())


def others_can_read(path: Path) -> bool:
    """Whether accounts besides the owner and its group have a right to a regular file, or to the one it links to.

    False if it cannot be examined and for a device, pipe, socket or folder: whose mode others need, as of /dev/null.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IRWXO)


def other_kind(path: Path) -> str:
    """What `path` is instead of a regular file; "" for one, and if it cannot be examined."""
    try:
        _require_regular(path.stat().st_mode, path)
    except IsADirectoryError:
        return "it is a folder, expected a regular file"
    except OSError as error:
        return NOT_REGULAR if error.strerror == NOT_REGULAR else ""
    return ""


def hidden(path: Path) -> str:
    """Why this user cannot see whether there is anything at `path`: "Permission denied"; "" for one who can."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return str(error.strerror)
    return ""


def others_access(status: os.stat_result) -> str:
    """Why another account may change a file or folder of this status, as the end of a sentence; "" if none may.

    root may change everything, and is not counted. On Windows always "", because there an access control list decides,
    of which a status has nothing.
    """
    if sys.platform == "win32":
        return ""
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to account {status.st_uid}, and this is account {os.geteuid()}"
    bits = (("its group", stat.S_IWGRP), ("all accounts", stat.S_IWOTH))
    writers = [who for who, bit in bits if status.st_mode & bit]
    return f"can be written by {' and '.join(writers)}" if writers else ""


SMALL_FILE = 4 << 20
"""Most bytes of a configuration, secret, key, or file of certificates; those of a whole system have 0.3 MB."""

NOT_REGULAR = "it is a pipe, socket or device, expected a regular file"
"""`strerror` of the error that `open_regular` raises for these."""

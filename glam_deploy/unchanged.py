"""SHA-256 of input files, and whether a file stayed the same while it was read.

A library reads a file by its name, so it opens another file than the one hashed if that is replaced in between:
the result of one image would have the identity of the other.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from glam_deploy.errors import InputError, unreadable
from glam_deploy.regular import held, open_regular

MAX_BYTES = 5 << 30
"""Largest size of a file that is read for its hash: native pixel data have up to 4 GiB (PS3.5 section 7.1.1), as
uncompressed tomosynthesis, which is skipped."""
_FRESH_S = 10.0
"""Age in seconds below which a second change may have the times of the first: file systems count in steps of up to 2 s
(FAT), and clocks of servers differ a little."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits. Raises InputError if it cannot be read or has more than MAX_BYTES."""
    try:
        with open_regular(path) as file:
            return _sha256(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise _unreadable(error) from error


def _sha256(file: BinaryIO, size: int) -> str:
    """`size`: that of the file when it was opened. Raises InputError for more bytes, which files of /proc may have."""
    if size > MAX_BYTES:
        raise InputError(f"the file has {size} bytes, expected at most {MAX_BYTES}: it is no image")
    total, count, buffer = hashlib.sha256(), 0, memoryview(bytearray(1 << 18))
    while number := file.readinto(buffer):  # type: ignore[attr-defined]
        total.update(buffer[:number])
        if (count := count + number) > size:
            raise InputError(f"the file grows, it has more than its {size} bytes: wait until it is complete")
    return total.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a file was when it was hashed."""

    path: Path
    sha256: str
    status: tuple[int, ...]
    """As of `_status`."""

    @classmethod
    def of(cls, path: Path) -> "Snapshot":
        """Raises InputError if the file cannot be read."""
        try:
            with open_regular(path) as file:
                status = _status_of(file)
                return cls(path=path, status=status, sha256=_sha256(file, status[2]))
        except OSError as error:
            raise _unreadable(error) from error

    def holding(self) -> AbstractContextManager[None]:
        """Context in which the path leads to this file (`regular.held`)."""
        return held(self.path, (self.status[0], self.status[1]))

    def require_unchanged(self) -> None:
        """Raise InputError if the file cannot be read, or may have had another content since.

        The content is read a second time only where the status of the file does not show that it is the same. With
        another status and the same content, it may have been exchanged and put back.
        """
        is_same = _status(self.path) == self.status
        if not is_same or _is_fresh(self.status):
            require_sha256(self.path, self.sha256)
        if not is_same:
            raise InputError("the file was changed, moved or linked while it was read: run again when it rests")


@contextmanager
def unchanged(path: Path) -> Iterator[str]:
    """Context in which a file is read by its name, with the SHA-256 of its content as hexadecimal digits.

    Raises InputError at the beginning as `Snapshot.of`, and at the end as `Snapshot.require_unchanged`.
    """
    snapshot = Snapshot.of(path)
    with snapshot.holding():
        yield snapshot.sha256
    snapshot.require_unchanged()


@contextmanager
def holding(snapshots: Iterable[Snapshot]) -> Iterator[None]:
    """Context in which the path of each snapshot leads to its file, as of `Snapshot.holding`."""
    with ExitStack() as stack:
        for snapshot in snapshots:
            stack.enter_context(snapshot.holding())
        yield


def require_sha256(path: Path, sha256: str) -> None:
    """Raise InputError for a file that cannot be read, or has another SHA-256 than it had before."""
    if (found := file_sha256(path)) != sha256:
        raise InputError(
            f"the file was changed or replaced while it was read (SHA-256 {sha256[:12]}..., now {found[:12]}...): wait "
            "until it is complete, and run again"
        )


def _status(path: Path) -> tuple[int, ...]:
    """What shows a change of a file: its identity, size and times in ns (stat(2)).

    Of an open file, because network file systems ask the server when they open one.
    """
    try:
        with open_regular(path) as file:
            return _status_of(file)
    except OSError as error:
        raise _unreadable(error) from error


def _status_of(file: BinaryIO) -> tuple[int, ...]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_fresh(status: tuple[int, ...]) -> bool:
    *_, modified, changed = status
    return max(modified, changed) > time.time_ns() - int(_FRESH_S * 1e9)


def _unreadable(error: OSError) -> InputError:
    return InputError(f"the file cannot be read {unreadable(error)}")

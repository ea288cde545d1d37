"""The folder of a copy: its manifest, its files, and the mark of a node that has taken over.

manifest.json      every file with its size and SHA-256; replaced as the last step of a copy
copy.id            random, made with the folder
taken-over.json    written by the node that takes over; nothing is copied into the folder afterwards
state-DIGEST.db    the state at the moment of the copy
files/             the files that this state names, by their paths in the data folder
"""

import json
import os
import secrets
import socket
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from glam_deploy.appliance.data import is_part, part_file
from glam_deploy.durable import move_into_place
from glam_deploy.errors import UsageError
from glam_deploy.json_records import JsonFault, from_json, to_json
from glam_deploy.regular import read_regular

FORMAT = 1
"""Raised when the meaning of the folder's files changes."""
LIMIT = 1 << 20
"""Bytes of taken-over.json and copy.id."""
GROWING = "audit/"
"""Prefix of files that only grow: a longer file than the manifest says is sound if it begins with the same bytes."""


@dataclass(frozen=True, kw_only=True)
class CopiedFile:
    """A file of a copy."""

    path: str
    """Relative to the data folder; of the state, relative to the folder of the copy."""
    bytes: int
    sha256: str
    changed_ns: int = 0
    """Time of the last change of the original, nanoseconds since 1970."""

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        if not self.path.isprintable():
            raise JsonFault(f"path {self.path!a} has characters that the data folder never has")
        if self.bytes < 0:
            raise JsonFault(f"bytes is {self.bytes}, expected 0 or more")
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise JsonFault(f"path {self.path!r} leads out of the folder")

    @property
    def grows(self) -> bool:
        return self.path.startswith(GROWING)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Content of manifest.json."""

    format: int
    release: str
    """Of glam-deploy."""
    state_version: int
    """Schema version of the state."""
    owner: str
    """Pseudonym of the data folder, by its audit key."""
    made_at: str
    """UTC, ISO 8601: what was received before is in the copy."""
    standby: bool
    """Kept current for a second node by `[standby]`."""
    state: CopiedFile
    files: tuple[CopiedFile, ...]
    absent: tuple[str, ...] = ()
    """Paths that the state names and that were not there: removed by retention."""

    def __post_init__(self) -> None:
        _require_time("made_at", self.made_at)
        _require_printable("release", self.release)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in (self.state, *self.files))


@dataclass(frozen=True, kw_only=True)
class TakeOver:
    """Content of taken-over.json."""

    host: str
    at: str
    """UTC, ISO 8601."""

    def __post_init__(self) -> None:
        _require_printable("host", self.host)
        _require_printable("at", self.at)


def _require_printable(name: str, text: str) -> None:
    """Raises JsonFault for control characters, which a terminal would obey."""
    if not text.isprintable():
        raise JsonFault(f"{name} is {text[:64]!a}, expected printable text")


def _require_time(name: str, text: str) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise JsonFault(f"{name} is {text[:64]!a}, expected a time as 2026-05-31T08:00:00+00:00") from error


@dataclass(frozen=True, kw_only=True)
class CopyFolder:
    """Paths of a copy."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def id(self) -> Path:
        return self.root / "copy.id"

    @property
    def taken_over(self) -> Path:
        return self.root / "taken-over.json"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def files(self) -> Path:
        return self.root / "files"

    def read_manifest(self) -> Manifest:
        """Raises UsageError if the folder is no copy, or one of a later release."""
        try:
            value = json.loads(read_regular(self.manifest))
            if isinstance(value, dict) and isinstance(value.get("format"), int) and value["format"] > FORMAT:
                raise UsageError(
                    f"{self.root} was made by glam-deploy {value.get('release')!a} in format {value['format']}, "
                    f"expected up to {FORMAT}: restore it with that release"
                )
            return from_json(Manifest, value)
        except FileNotFoundError as error:
            raise UsageError(
                f"{self.root} is no backup, it has no manifest.json: give a folder that glam-deploy backup made"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(
                f"the backup {self.root} is damaged, its manifest.json cannot be read ({reason}): use another backup"
            ) from error

    def read_taken_over(self) -> TakeOver | None:
        """Who has taken over; None if nobody has. Raises OSError if the folder cannot be read."""
        try:
            return from_json(TakeOver, json.loads(read_regular(self.taken_over, LIMIT)))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):  # half written by a program that copied the folder: somebody has
            return TakeOver(host="an unknown node", at="an unknown time")

    def taken_over_by(self) -> TakeOver | None:
        """As `read_taken_over`. Raises UsageError if the mark cannot be read."""
        try:
            return self.read_taken_over()
        except OSError as error:
            raise UsageError(
                f"{self.taken_over} cannot be read ({error.strerror}): make it readable for this user, or remove what "
                "is in its place if no node has taken over"
            ) from error

    def mark_taken_over(self) -> bool:
        """Record that this machine takes over; again by the same machine changes nothing, and is False.

        Raises UsageError if another machine has, or if the mark cannot be read.
        """
        host, known = socket.gethostname(), self.taken_over_by()
        if known and known.host != host:
            raise UsageError(
                f"{self.root} was taken over by {known.host} at {known.at}: stop the appliance there and remove "
                f"{self.taken_over} if {host} shall take its place"
            )
        if not known:
            write_durably(self.taken_over, to_json(TakeOver(host=host, at=utc_now())))
        return not known

    def make(self) -> None:
        """Create the folder, its id, and its folder of files, accessible to this user only. Raises OSError, UsageError.

        Rights of others in folders of this user are withdrawn, because images of patients lie there.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.files.is_symlink():
            raise UsageError(f"{self.files} is a link, expected a folder of the backup: remove it")
        self.files.mkdir(mode=0o700, exist_ok=True)
        for folder in (self.root, self.files):
            facts = folder.stat()
            if facts.st_uid == os.geteuid() and facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                folder.chmod(stat.S_IMODE(facts.st_mode) & stat.S_IRWXU)
        if not self.id.exists():
            write_durably(self.id, secrets.token_hex(16))

    def is_empty(self) -> bool:
        """Whether it holds nothing but what a first copy leaves that ended before it had an id. Raises OSError."""
        others = (path for path in self.root.iterdir() if path != self.files and not is_part(path))
        return not any(others) and not (self.files.exists() and any(self.files.iterdir()))

    def read_id(self) -> str:
        """The id of the folder; "" if it has none. Raises OSError if the folder cannot be read."""
        try:
            return str(json.loads(read_regular(self.id, LIMIT)))
        except FileNotFoundError:
            return ""


def write_durably(path: Path, value: Any) -> None:
    """Write `value` as JSON, so that after a power failure the file is complete or as it was. Raises OSError."""
    with part_file(path.parent) as (part, file):
        file.write(json.dumps(value, allow_nan=False).encode())
        file.flush()
        os.fsync(file.fileno())
        move_into_place(part, path)


def utc_now() -> str:
    """Now, by the wall clock: UTC, ISO 8601, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")

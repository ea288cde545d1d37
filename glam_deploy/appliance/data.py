"""The data folder: its paths, and how files and folders are moved to their final names atomically."""

import errno
import json
import os
import pwd
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from glam_deploy.dicom.uids import digest, is_uid
from glam_deploy.durable import move_into_place, sync_folder
from glam_deploy.errors import UsageError
from glam_deploy.json_records import parse_json
from glam_deploy.regular import open_lock, open_regular, try_lock

FINDING, OBJECTS, ARRAYS, PICTURE, REPORT = "finding.json", "objects.json", "saliency.npz", "overlay.png", "report.json"
"""File names in the folders of results."""

ENDING_S = 10.0
_POLL_S = 0.1
_EMPTY_FOLDER = "set `data` in the configuration to an empty folder, or to a path that the first start can create"
_BELOW = ("spool/incoming", "spool/studies", "quarantine", "audit", "cache", "locks", "results/views", "results/jobs")
"""Folders of a data folder."""
_BEFORE_STATE = {
    *(path.partition("/")[0] for path in _BELOW),
    *("audit.key", "device.uid", "lost+found"),
    *(f"state.db-{name}" for name in ("journal", "wal", "shm")),
}
"""Names that a folder without `state.db` may have after an interrupted first start; lost+found: of a new disk."""
_PART = re.compile(r"\.[0-9a-f]{24}\.part")

_KEPT_STATE = re.compile(r"state\.db\.version-\d+")
"""A state before its conversion (`database.open_database`)."""
_RECEIVED = ("spool/studies", "quarantine")
"""Folders that are empty before the first start has ended."""

_VERSION = "_"
"""Separates UID and version in the name of an instance's file; no UID has this character."""


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Why a folder cannot be used as a data folder."""

    what: str
    """The end of a sentence that begins with the folder."""
    remedy: str


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """Paths below `root`; rows of `state.db` name files relative to it."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "state.db"

    @property
    def incoming(self) -> Path:
        """Files being received. Nothing here has been acknowledged; leftovers are removed by the keeper."""
        return self.root / "spool" / "incoming"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def audit(self) -> Path:
        return self.root / "audit"

    @property
    def cache(self) -> Path:
        """Compiled models; may be deleted at any time."""
        return self.root / "cache"

    @property
    def restoring(self) -> Path:
        """Files of a backup that is being restored; gone when that is complete."""
        return self.root / ".restoring"

    @property
    def locks(self) -> Path:
        """A file for each process that must be the only one of its kind, which holds a lock of it."""
        return self.root / "locks"

    @property
    def standby_id(self) -> Path:
        """The id of the copy of `[standby]` that was made of it; not part of that copy."""
        return self.root / "standby.id"

    def study(self, study_uid: str) -> Path:
        """Folder of a study's instances, named by a digest because a UID can be as long as a file name."""
        return self.root / "spool" / "studies" / digest(study_uid)[:32]

    def instance(self, study_uid: str, sop_uid: str, *, version: str | None = None) -> Path:
        """Path of a received instance; `version`: SHA-256 of one that replaces an earlier version.

        Raises UsageError if `sop_uid` is not a UID, since it could be a path.
        """
        if not is_uid(sop_uid):
            raise UsageError(
                "SOPInstanceUID is not a valid UID (PS3.5 section 9.1): expected digits and dots, up to 64"
            )
        name = f"{sop_uid}{_VERSION}{version[:16]}" if version else sop_uid
        return self.study(study_uid) / f"{name}.dcm"

    def quarantined(self, sop_uid: str, sha256: str) -> Path:
        """Path of another version of an instance; `sop_uid` is a UID."""
        return self.quarantine / f"{sop_uid}.{sha256[:16]}.dcm"

    @staticmethod
    def sop_uid(path: Path) -> str:
        """The SOP Instance UID in the name of an instance's file."""
        return path.stem.partition(_VERSION)[0]

    def view_results(self, view_key: str) -> Path:
        """Folder of the results of one view; shared by all jobs that the view is part of."""
        return self.root / "results" / "views" / view_key

    def job_results(self, job_key: str) -> Path:
        """Folder of the result objects on a whole study."""
        return self.root / "results" / "jobs" / job_key

    def relative(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def free_bytes(self) -> int:
        """Free bytes on its disk, for this user. Raises OSError."""
        room = os.statvfs(self.root)
        return room.f_bavail * room.f_frsize

    def require_owner(self) -> None:
        """Raises UsageError if this user cannot use the folder: another one owns it, or no access to it is allowed.

        The owner could not read files that this user writes. A folder that does not exist has no owner yet.
        """
        try:
            owner = self.root.stat().st_uid
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise UsageError(
                f"the data folder {self.root} cannot be reached ({error.strerror}): run this as the user of the "
                "appliance, or set a folder as `data` in the configuration that this user has access to"
            ) from error
        if owner != os.geteuid():
            name = _user(owner)
            raise UsageError(
                f"the data folder {self.root} belongs to {name}, but this process runs as {_user(os.geteuid())}, whose "
                f"files the appliance could not use: run this as {name}, with sudo -u {name}"
            )

    def obstacle(self) -> Obstacle | None:
        """Why it cannot become or be a data folder; None if it can. Raises OSError.

        A folder with files of other programs is none: its mode and content are theirs. In one whose state is gone, a
        new state would not name what was received.
        """
        if not self.root.exists():
            return None
        if not self.root.is_dir():
            return Obstacle(what="is not a folder", remedy=_EMPTY_FOLDER)
        if self.restoring.exists():
            what = "holds a backup that was not restored to the end"
            return Obstacle(what=what, remedy="empty it, and run glam-deploy restore again")
        if self.database.exists():
            return None
        names = sorted(path.name for path in self.root.iterdir())
        kept = [name for name in names if _KEPT_STATE.fullmatch(name)]
        if kept or any(map(_has_content, (self.root / path for path in _RECEIVED))):
            return self._lost_state(kept)
        foreign = next((name for name in names if name not in _BEFORE_STATE and not _PART.fullmatch(name)), None)
        what = f"holds {foreign!r} and no {self.database.name}: it is not the appliance's"
        return Obstacle(what=what, remedy=_EMPTY_FOLDER) if foreign else None

    def _lost_state(self, kept: list[str]) -> Obstacle:
        remedy = "put it back, or move the folder away and restore a backup"
        if kept:
            name = self.database.name
            rename = f"delete {name}-wal and {name}-shm, and rename {kept[-1]} to {name}"
            remedy += f"; or, to go back to the release before, {rename}"
        return Obstacle(what=f"holds what was received, and no {self.database.name}", remedy=remedy)

    def make(self) -> None:
        """Create every folder with mode 0700.

        Raises UsageError if that fails, if a restoration was interrupted, or if the folder holds something else or
        belongs to another user.
        """
        self.require_owner()
        try:
            if obstacle := self.obstacle():
                raise UsageError(f"the data folder {self.root} {obstacle.what}: {obstacle.remedy}")
            for folder in (self.root, *(self.root / path for path in _BELOW)):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the data folder {self.root} cannot be made ({error.strerror}): give this user the right to write "
                "there, or set another folder as `data` in the configuration"
            ) from error


@contextmanager
def sole_process(data: DataFolder, role: str) -> Iterator[None]:
    """Let no other process have this role in the data folder during the block.

    The kernel gives the lock back when the process ends, however it does. Raises UsageError if another one has it for
    ENDING_S, in which a process that was killed ends.
    """
    with open_lock(data.locks / role) as file:
        latest = time.monotonic() + ENDING_S
        while not try_lock(file):
            if time.monotonic() >= latest:
                raise UsageError(
                    f"another process is the {role} of the data folder {data.root} already: stop it, or set another "
                    "`data` in the configuration"
                )
            time.sleep(_POLL_S)
        yield


def has_process(data: DataFolder, role: str) -> bool:
    """Whether a process has this role in the data folder now (`sole_process`). Changes nothing."""
    with suppress(OSError), open_regular(data.locks / role) as file:
        return not try_lock(file, shared=True)
    return False


def _has_content(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _user(number: int) -> str:
    """User name, or `#number` (the form that sudo accepts) for a user without a name."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"#{number}"


def is_part(path: Path) -> bool:
    """Whether it has the name of a `part_file`."""
    return bool(_PART.fullmatch(path.name))


@contextmanager
def part_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new temporary file in `folder` for this user only (0600); deleted at the end of the block unless
    `move_into_place` moved it.
    """
    path = folder / f".{secrets.token_hex(12)}.part"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` at the end of the block.

    If `target` exists by then, its content is kept and the new folder is discarded: results under one name are the
    same, and no process replaces those of another one.
    """
    with part_folder(target.parent) as part:
        yield part
        sync_folder(part)
        try:
            move_into_place(part, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


@contextmanager
def part_folder(parent: Path) -> Iterator[Path]:
    """A new temporary folder in `parent`, removed at the end of the block unless it was moved."""
    part = parent / f".{secrets.token_hex(12)}.part"
    part.mkdir(mode=0o700)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(part: Path, target: Path) -> None:
    """Rename a complete, synchronized folder to `target`, where another one may be."""
    if target.exists():
        shutil.rmtree(target)
    move_into_place(part, target)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON; NaN and infinity are errors."""
    path.write_text(json.dumps(value, allow_nan=False), "utf-8")


def read_json(path: Path) -> Any:
    return parse_json(path.read_text("utf-8"))

"""The data folder: where files lie, and how one comes to lie there for good."""

import os
import pwd
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from glam_deploy.appliance.identity import digest, is_uid
from glam_deploy.errors import UsageError

FINDING, OBJECTS, ARRAYS, PICTURE, REPORT = "finding.json", "objects.json", "saliency.npz", "overlay.png", "report.json"
"""Names of files in the folders of results."""


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """Paths below `root`; a row of `state.db` names files relative to it."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "state.db"

    @property
    def incoming(self) -> Path:
        """What is being received; nothing here has been acknowledged, and a start removes it."""
        return self.root / "spool" / "incoming"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def audit(self) -> Path:
        return self.root / "audit"

    @property
    def cache(self) -> Path:
        """Compiled models; may be removed at any time."""
        return self.root / "cache"

    def study(self, study_uid: str) -> Path:
        """The folder of a study's instances, named by a digest: a UID can be as long as a file name may be."""
        return self.root / "spool" / "studies" / digest(study_uid)[:32]

    def instance(self, study_uid: str, sop_uid: str) -> Path:
        """Raises UsageError for what is no UID, which may be a path that leads elsewhere."""
        if not is_uid(sop_uid):
            raise UsageError("SOPInstanceUID is no UID (PS3.5 section 9.1): expected digits and dots, up to 64")
        return self.study(study_uid) / f"{sop_uid}.dcm"

    def view_results(self, view_key: str) -> Path:
        """What was found in one view, and its objects; the same for every job that it is part of."""
        return self.root / "results" / "views" / view_key

    def job_results(self, job_key: str) -> Path:
        """The objects that concern a study as a whole."""
        return self.root / "results" / "jobs" / job_key

    def relative(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def free_bytes(self) -> int:
        """Room on its disk, for this user. Raises OSError."""
        room = os.statvfs(self.root)
        return room.f_bavail * room.f_frsize

    def require_owner(self) -> None:
        """Raises UsageError where the folder is another user's, who could not use what we write into it."""
        owner = self.root.stat().st_uid
        if owner != os.geteuid():
            name = _user(owner)
            raise UsageError(
                f"the data folder {self.root} belongs to {name}, and this is {_user(os.geteuid())}, whose files the "
                f"appliance could not use: run this as {name}, with sudo -u {name}"
            )

    def make(self) -> None:
        """Make every folder, for this user alone. Raises UsageError where that cannot be done."""
        below = (self.incoming, self.root / "spool/studies", self.quarantine, self.audit, self.cache,
                 self.root / "results/views", self.root / "results/jobs")  # fmt: skip
        try:
            for folder in (self.root, *below):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if folder == self.root:
                    self.require_owner()
        except OSError as error:
            raise UsageError(
                f"the data folder {self.root} cannot be made ({error.strerror}): give this user the right to write "
                "there, or name another one as `data` in the configuration"
            ) from error


def _user(number: int) -> str:
    """As sudo takes it."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"#{number}"


@contextmanager
def part_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in `folder` that goes away unless it was moved; for `settle`."""
    path = folder / f".{secrets.token_hex(12)}.part"
    try:
        with path.open("xb") as file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


def settle(part: Path, target: Path) -> None:
    """Move a finished file or folder to its name, so that it is there whole after a power failure, or not at all.

    Both lie on one file system. Its bytes must have been synchronized before (`sync`); a file that stands at `target`
    is replaced, a folder that does must be empty. The last folder on the way to `target` is made where it is missing.
    """
    if not target.parent.is_dir():
        target.parent.mkdir(mode=0o700, exist_ok=True)
        sync(target.parent.parent)
    part.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """The bytes of a file, or the entries of a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""A folder as a target: each result object becomes the file `STUDY/SOP.dcm`, complete or absent at any moment.

Names are UIDs, derived ones for those that are not valid (`uids.valid_uid`). Files are written with mode 0640 and
folders of studies with 0750, less the umask of the service.
"""

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from glam_deploy.dicom.net import files
from glam_deploy.dicom.net.delivery import Answer, Commitment, Item, Outcome
from glam_deploy.dicom.uids import valid_uid
from glam_deploy.durable import sync
from glam_deploy.errors import DicomError, PeerDeclined, PeerError
from glam_deploy.regular import read_regular

FULL = (errno.ENOSPC, errno.EDQUOT)
FILE_MODE, FOLDER_MODE = 0o640, 0o750


@dataclass(frozen=True, kw_only=True)
class FolderSession:
    """Writes into one folder: a `delivery.Session`. Entering raises PeerError if the folder cannot be used.

    The folder is not created: without its disk, files would go to the mount point.
    """

    folder: Path

    def __enter__(self) -> "FolderSession":
        require_usable(self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open."""

    def store(self, item: Item) -> Answer:
        """Write one object durably; a file that has the same content stays. Raises PeerError for errors of the disk."""
        try:
            place, content = self._place(item), files.content(item)
        except DicomError as error:
            return files.unreadable(item, error)
        try:
            if _content(place) != content:
                self._write(content, place)
        except OSError as error:
            if error.errno in FULL:
                return Answer(sop_uid=item.sop_uid, outcome=Outcome.NO_ROOM, reason=f"{self.folder} is full")
            raise self._failed(error) from error
        return Answer(sop_uid=item.sop_uid, outcome=Outcome.STORED)

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        """SOP Instance UIDs of the `items` whose file can be read and has their content. Raises PeerError."""
        try:
            return frozenset(item.sop_uid for item in items if self._holds(item))
        except OSError as error:
            raise self._failed(error) from error

    def _holds(self, item: Item) -> bool:
        try:
            place, content = self._place(item), files.content(item)
        except DicomError:  # `store` gives the reason
            return False
        return _content(place) == content

    def commit(self, items: Sequence[Item], transaction_uid: str, *, wait_s: float) -> Commitment | None:
        """Raise PeerDeclined, because a folder answers no requests."""
        raise PeerDeclined(f"{self.folder} is a folder, without storage commitment: set `commitment = false`")

    def _place(self, item: Item) -> Path:
        """Raises DicomError if the object cannot be read."""
        study_uid = str(files.header(item).StudyInstanceUID)
        names = valid_uid("StudyInstanceUID", study_uid), valid_uid("SOPInstanceUID", item.sop_uid)
        return self.folder / names[0] / f"{names[1]}.dcm"

    def _write(self, content: bytes, place: Path) -> None:
        study, part = place.parent, place.with_name(f".{place.stem}.part")
        try:
            study.mkdir(FOLDER_MODE)
            sync(self.folder)
        except FileExistsError:
            if not stat.S_ISDIR(study.lstat().st_mode):  # a link would lead elsewhere
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(study)) from None
        part.unlink(missing_ok=True)  # of an interrupted attempt
        number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
        sync(study)

    def _failed(self, error: OSError) -> PeerError:
        return PeerError(f"{self.folder} cannot be used ({error.strerror}): check its disk and the rights of this user")


def require_usable(folder: Path) -> None:
    """Raise PeerError if this process cannot make files in `folder`."""
    if folder.exists() and not folder.is_dir():
        raise PeerError(f"{folder} is not a folder: set `folder` of this target to one")
    if not folder.is_dir():
        raise PeerError(f"the folder {folder} does not exist: mount its disk, or create it")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PeerError(f"the folder {folder} cannot be written by this user: give it the right to")


def _content(path: Path) -> bytes | None:
    """The content of a regular file, None if there is no file. Raises OSError."""
    try:
        return None if path.is_symlink() else read_regular(path)
    except FileNotFoundError:
        return None

"""The sweep: what a process left half-made when it was killed, and no row of `state.db` names."""

import logging
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.state.database import transaction

log = logging.getLogger(__name__)

UNTOUCHED_S = 3600.0
"""A file that stays as it is for so long is nobody's: every process makes it known, or gives it up, in seconds."""

Mark = tuple[int, int, int]


class Sweep:
    """Removes stray files; remembers since when each has stayed the same, in a time that no clock can change."""

    def __init__(self, data: DataFolder, connection: sqlite3.Connection) -> None:
        self._data, self._connection = data, connection
        self._seen: dict[Path, tuple[Mark, float]] = {}

    def __call__(self, now: float) -> None:
        """Do what is due at steady time `now`. Raises OSError where something cannot be removed."""
        strays = {path: mark for path in self._strays() if (mark := _mark(path))}
        self._seen = {
            path: old if (old := self._seen.get(path)) and old[0] == mark else (mark, now)
            for path, mark in strays.items()
        }
        for path, (mark, since) in list(self._seen.items()):
            if now - since >= UNTOUCHED_S:
                self._remove(path, mark)

    def _strays(self) -> Iterator[Path]:
        yield from self._data.incoming.iterdir()
        for folder in (self._data.root / "spool/studies").iterdir():
            yield from (path for path in folder.iterdir() if not self._known_instance(path))
        views = {row[0] for row in self._connection.execute("SELECT folder FROM job_view WHERE folder NOT NULL")}
        for folder in (self._data.root / "results/views").iterdir():
            if self._data.relative(folder) not in views:
                yield folder
        keys = {row[0] for row in self._connection.execute("SELECT key FROM job")}
        yield from (folder for folder in (self._data.root / "results/jobs").iterdir() if folder.name not in keys)

    def _known_instance(self, path: Path) -> bool:
        row = self._connection.execute("SELECT path FROM instance WHERE sop_uid = ?", (path.stem,)).fetchone()
        return row is not None and row["path"] == self._data.relative(path)

    def _remove(self, path: Path, mark: Mark) -> None:
        """Under the right to write, so that no row comes to name it in between."""
        with transaction(self._connection):
            if path not in set(self._strays()) or _mark(path) != mark:
                return
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        log.info("removed %s, which a process left behind when it was killed", path.parent.name)


def _mark(path: Path) -> Mark | None:
    """Changes when a file does, or another one takes its name; None where it has gone."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size

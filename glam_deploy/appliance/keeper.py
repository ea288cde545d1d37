"""The role `keeper`: assembles complete studies into jobs; removes expired studies and files left by killed processes;
keeps the copy of `[standby]` current.

Nothing else deletes received files or results. Times are monotonic: a change of the clock removes nothing.
"""

import logging
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from glam_deploy.appliance.audit import Audit, open_audit
from glam_deploy.appliance.backup.replication import fence_of, replicate
from glam_deploy.appliance.config import Config, Retain
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.process import RECURRING
from glam_deploy.appliance.state import studies
from glam_deploy.appliance.state.database import monotonic_clock, open_database, record_heartbeat, transaction

log = logging.getLogger(__name__)

DAY_S = 86400.0
AT_ONCE = 50
"""Most studies that are deleted in one pass, so that other processes do not wait long for the database."""
BETWEEN_PASSES_S = 1.0
"""Pause before the next pass while more studies are due: the database shrinks faster than any sender fills it."""

UNTOUCHED_S = 3600.0
"""A file without a row that has not changed for this long is removed; every process records or deletes its files within
seconds.
"""
FileStamp = tuple[int, int, int]
POLL_S = 0.05
"""Between two checks for complete studies; part of the time from the last view to the results."""
HEARTBEAT_S = 1.0
CLEAN_S = 60.0


class Retention:
    """Removes files, and finally all rows, of studies that have been finished for long enough."""

    def __init__(self, data: DataFolder, connection: sqlite3.Connection, rules: Retain, audit: Audit) -> None:
        self._data, self._connection, self._audit = data, connection, audit
        self._instances_s, self._results_s = rules.instances_days * DAY_S, rules.results_days * DAY_S

    def __call__(self, now: float) -> bool:
        """Remove what is due at monotonic time `now`, oldest first; whether more studies are due than were removed.

        Raises OSError if a file cannot be removed.
        """
        studies.mark_finished(self._connection, now)
        gone_s = max(self._instances_s, self._results_s)
        gone = studies.finished_before(self._connection, now - gone_s)
        for study_uid in gone[:AT_ONCE]:
            self._forget(study_uid, now - gone_s)
        if len(gone) > AT_ONCE:
            return True
        for study_uid in studies.finished_before(self._connection, now - self._instances_s):
            self._remove_instances(studies.study_files(self._connection, study_uid), study_uid)
        for study_uid in studies.finished_before(self._connection, now - self._results_s):
            self._remove_results(studies.study_files(self._connection, study_uid))
        return False

    def _forget(self, study_uid: str, moment: float) -> None:
        """Remove a study under the database's write lock, so that no instance of it is recorded meanwhile."""
        with transaction(self._connection):
            if study_uid not in studies.finished_before(self._connection, moment):
                return
            found = studies.study_files(self._connection, study_uid)
            self._remove_instances(found, study_uid)
            self._remove_results(found)
            studies.delete_study(self._connection, study_uid)
        self._audit.write("study_removed", study=study_uid, instances=len(found.instances), jobs=len(found.job_keys))

    def _remove_instances(self, found: studies.StudyFiles, study_uid: str) -> None:
        """Remove the files that the database names; another file may be about to be recorded."""
        for path in (*found.instances, *found.quarantined):
            (self._data.root / path).unlink(missing_ok=True)
        folder = self._data.study(study_uid)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _remove_results(self, found: studies.StudyFiles) -> None:
        folders = [self._data.root / path for path in found.view_folders]
        for folder in (*folders, *map(self._data.job_results, found.job_keys)):
            if folder.is_dir():
                shutil.rmtree(folder)


class Sweep:
    """Removes files that no row of `state.db` names, left by killed processes.

    It remembers since which monotonic time each such file has been unchanged.
    """

    def __init__(self, data: DataFolder, connection: sqlite3.Connection) -> None:
        self._data, self._connection = data, connection
        self._seen: dict[Path, tuple[FileStamp, float]] = {}

    def __call__(self, now: float) -> None:
        """Remove what is due at monotonic time `now`. Raises OSError if something cannot be removed."""
        strays = {path: stamp for path in self._strays() if (stamp := _stamp(path))}
        self._seen = {
            path: old if (old := self._seen.get(path)) and old[0] == stamp else (stamp, now)
            for path, stamp in strays.items()
        }
        for path, (stamp, since) in list(self._seen.items()):
            if now - since >= UNTOUCHED_S:
                self._remove(path, stamp)

    def _strays(self) -> Iterator[Path]:
        yield from self._data.incoming.iterdir()
        for folder in (self._data.root / "spool/studies").iterdir():
            found = folder.iterdir() if folder.is_dir() and not folder.is_symlink() else [folder]
            yield from (path for path in found if not self._known_instance(path))
        versions = {row[0] for row in self._connection.execute("SELECT path FROM quarantine")}
        yield from (path for path in self._data.quarantine.iterdir() if self._data.relative(path) not in versions)
        views = {row[0] for row in self._connection.execute("SELECT folder FROM job_view WHERE folder NOT NULL")}
        for folder in (self._data.root / "results/views").iterdir():
            if self._data.relative(folder) not in views:
                yield folder
        keys = {row[0] for row in self._connection.execute("SELECT key FROM job")}
        yield from (folder for folder in (self._data.root / "results/jobs").iterdir() if folder.name not in keys)

    def _known_instance(self, path: Path) -> bool:
        row = self._connection.execute(
            "SELECT path FROM instance WHERE sop_uid = ?", (self._data.sop_uid(path),)
        ).fetchone()
        return row is not None and row["path"] == self._data.relative(path)

    def _remove(self, path: Path, stamp: FileStamp) -> None:
        """Remove a file under the database's write lock, so that no row can name it meanwhile."""
        with transaction(self._connection):
            if path not in set(self._strays()) or _stamp(path) != stamp:
                return
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        log.info("removed a leftover of a killed process in %s", path.parent.name)


def _stamp(path: Path) -> FileStamp | None:
    """Inode, modification time and size, which change with the file; None if it is gone."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def run(config: Config, stop: threading.Event) -> None:
    """Assemble studies and clean up until `stop` is set. Raises UsageError if the data folder cannot be used."""
    data = DataFolder(root=config.data)
    data.make()
    cleaner = threading.Thread(target=_clean, args=(config, data, stop), name="cleaner")
    cleaner.start()
    # not waited for: an interrupted copy is as good as none, and a network disk may not answer
    threading.Thread(target=_replicate, args=(config, data, stop), name="standby", daemon=True).start()
    try:
        with closing(open_database(data.database)) as connection:
            _assemble(config, connection, stop)
    finally:  # also after an exception, since the process would wait for the cleaner thread
        stop.set()
        cleaner.join()


def _replicate(config: Config, data: DataFolder, stop: threading.Event) -> None:
    """Body of the thread that keeps the copy of `[standby]` current."""
    if fence := fence_of(config):
        with closing(open_database(data.database)) as connection:
            replicate(config, fence, connection, monotonic_clock(connection), stop)


def _assemble(config: Config, connection: sqlite3.Connection, stop: threading.Event) -> None:
    monotonic, next_beat = monotonic_clock(connection), 0.0
    while not stop.wait(POLL_S):
        try:
            studies.assemble_complete(connection, config.assemble, monotonic())
            if monotonic() >= next_beat:
                next_beat = monotonic() + HEARTBEAT_S
                record_heartbeat(connection, monotonic, "keeper", "ready", {})
        except sqlite3.OperationalError as error:  # a full disk: retry until there is space
            log.error("state.db cannot be written (%s)", error, extra=RECURRING)
            stop.wait(HEARTBEAT_S)


def _clean(config: Config, data: DataFolder, stop: threading.Event) -> None:
    with closing(open_database(data.database)) as connection:
        monotonic = monotonic_clock(connection)
        sweep, retention = Sweep(data, connection), Retention(data, connection, config.retain, open_audit(data))
        while True:
            try:
                sweep(monotonic())
                while retention(monotonic()):
                    if stop.wait(BETWEEN_PASSES_S):
                        return
            except (OSError, sqlite3.OperationalError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                log.error("cleaning was interrupted (%s) and is retried", reason, extra=RECURRING)
            if stop.wait(CLEAN_S):
                return

"""The result of archive runs: Parquet parts of two tables, and the ledger of what they have.

    DEST/
      views/bundle=<digest>/part-*.parquet   one row for each distinct instance
      files/bundle=<digest>/part-*.parquet   one row for each entry of the source
      ledger-<digest>.db                     ids of all rows (ledger.py); made again from the parts if it is missing
      pseudonyms                             fingerprint of the key, if identifiers are pseudonyms
      device.uid                             device UID of the objects (objects.py)
      lock                                   held by the process that writes

A part is complete under its name, or not there (parts.py); after that the ledger records it in one transaction. A
process that is killed in between leaves a part that the ledger does not know: the next one reads and records it
(recovery.py). The row that was recorded last for an id replaces one in an earlier part, which is then written again
without it; so is the row of an entry that could not be read, once its location has another one. A row also gets a
notice in this way when another image with its SOPInstanceUID is recorded, after its SEG and SR were withdrawn.
"""

import errno
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glam_deploy.archive.identifiers import Identifiers
from glam_deploy.archive.ledger import Instance, Ledger, Seen, uid_key
from glam_deploy.archive.objects import (
    AMBIGUOUS_REASON,
    DICOM,
    NO_DICOM,
    ObjectPlan,
    objects_folder,
    withdraw,
)
from glam_deploy.archive.parts import FILES, TEMPORARY, VIEWS, Parts
from glam_deploy.archive.recovery import compare, instance_of, recover, seen_of
from glam_deploy.archive.rows import DONE, EXCLUDED, FAILED, UNREADABLE, FileRow, ViewRow
from glam_deploy.errors import UsageError, unwritable
from glam_deploy.records import AMBIGUOUS_UID
from glam_deploy.regular import open_lock, try_lock

RETRIED = frozenset({FAILED, UNREADABLE})
"""Outcomes that are tried again on request."""
_NO_FOLDER = "a file is there, or on the way to it, expected a folder"
_ON_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV, errno.EBUSY)
_KEY = "pseudonyms"
"""File with the fingerprint of the key, in the folder of the result."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Which rows of earlier runs stay, so that a run leaves out their entries."""

    tried_again: frozenset[str] = frozenset()
    """Outcomes of entries that get a new row, such as `RETRIED`."""
    objects: ObjectPlan | None = None
    """Files of each instance; one with a result and without one of them gets a new row, after its files."""

    def instance(self, ledger: Ledger, key: str) -> Instance | None:
        """The instance with this id, if its row stays."""
        known = ledger.instance(key)
        return known if known is not None and self._stays(known.status, key) else None

    def entry(self, ledger: Ledger, key: str) -> Seen | None:
        """The entry with this id, if its row stays."""
        seen = ledger.entry(key)
        return seen if seen is not None and self._stays(seen.outcome, seen.instance) else None

    def _stays(self, outcome: str, instance: str) -> bool:
        if not outcome or outcome in self.tried_again:
            return False
        return outcome != DONE or self.objects is None or self.objects.is_complete(instance)


class Dataset:
    """The two tables of one partition, for one writer; used as a context manager.

    Raises UsageError if the folder cannot be used, is full, or another process writes to it.
    """

    def __init__(
        self, dest: Path, digest: str, identifiers: Identifiers | None = None, kept: Kept | None = None
    ) -> None:
        """`digest`: of what makes the results (`plan.partition`). `identifiers`: None means as stored."""
        self._kept = kept or Kept()
        self._dest, self._digest, self._identifiers = dest, digest, identifiers or Identifiers()
        self._objects = ObjectPlan(folder=objects_folder(dest, digest), kinds=DICOM)
        self._views: list[ViewRow] = []
        self._files: list[FileRow] = []
        self._places: set[str] = set()
        self._listed: set[str] = set()
        """Entries of this run whose rows of earlier runs say that they cannot be read, and stay."""
        self._fresh: dict[str, Instance] = {}
        self._fresh_entries: set[str] = set()
        self._name = ""
        self.repaired: tuple[str, ...] = ()
        """Paths of the parts that were missing or damaged when the data set was opened; relative to `dest`."""
        self.lost = 0
        """Number of entries that had a row in a missing or damaged part, and have none yet."""
        self._stack = ExitStack()

    def __enter__(self) -> "Dataset":
        with self._stack as stack, writing(self._dest):
            self._dest.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(self._dest))
            _record_key(self._dest, self._identifiers)
            self._ledger = Ledger(ledger_path(self._dest, self._digest))
            stack.callback(self._ledger.close)
            self._parts = Parts(self._dest, self._digest, self._ledger)
            self._recover()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def unsaved(self) -> int:
        """Number of rows of `files` that were added after the last `flush`."""
        return len(self._files)

    def is_known(self, entry: str) -> bool:
        """Whether the entry with this id has a row that stays, or one was added."""
        if entry in self._fresh_entries:
            return True
        if (seen := self._kept.entry(self._ledger, entry)) is None:
            return False
        if seen.outcome == UNREADABLE:
            self._listed.add(entry)
        return True

    def instance(self, key: str) -> Instance | None:
        """The instance with this id, if it has a row that stays, or one was added."""
        return self._fresh.get(key) or self._kept.instance(self._ledger, key)

    def has_result(self, entry: str, instance: str) -> bool:
        """Whether an earlier run recorded a result of the entry or the instance: no failure may take its place."""
        seen = self._ledger.entry(entry)
        return (seen is not None and seen.outcome == DONE) or bool(self.owner(instance))

    def owner(self, instance: str) -> str:
        """Id of the entry that an earlier run read an instance with a result from; "" without a result."""
        known = self._ledger.instance(instance)
        return known.entry if known is not None and known.status == DONE else ""

    def has_ambiguous(self, uid: str) -> bool:
        """Whether images with different results have this SOPInstanceUID, as in their rows; "" is that of none."""
        key = uid_key(uid)
        return key is not None and self._ledger.has_ambiguous(key)

    @property
    def ambiguous(self) -> int:
        """Number of instances that have their SOPInstanceUID in common with one of another result, of all runs."""
        with writing(self._dest):
            return sum(1 for _ in self._ledger.ambiguous())

    def outcomes(self) -> dict[str, int]:
        """Outcome -> number of entries, of all runs into this partition."""
        return self._ledger.outcomes()

    def add(self, file: FileRow, view: ViewRow | None = None, places: Iterable[str] = ()) -> None:
        """Add the row of an entry, and that of its instance if this is its first; `flush` makes them permanent.

        `places`: locations, as the policy for identifiers has them, whose rows of earlier runs it replaces if they
        could not be read.
        """
        # the view first: Ctrl-C may come between the two, and an entry without its instance would be lost
        if view is not None:
            self._views.append(view)
            self._fresh[view.instance] = instance_of(view.to_arrow())
        self._files.append(file)
        if self._had_unreadable:
            self._places.update(places)
        self._fresh_entries.add(file.entry)

    def flush(self) -> None:
        """Write the added rows as parts, then record them. After an error they are still to be written."""
        if not self._files:
            return
        with writing(self._dest):
            # the same name if an earlier attempt was interrupted, so that its part is replaced
            name = self._name = self._name or self._next_name()
            views = [row.to_arrow() for row in self._views]
            files = [row.to_arrow() for row in self._files]
            # views first: without its file rows, an instance is found again by its id
            for table, rows in ((VIEWS, views), (FILES, files)):
                if rows:
                    self._parts.publish(table, name, rows)
            with self._ledger.transaction():
                self._ledger.replace_unreadable(self._places, self._last, kept=self._listed)
                self._ledger.record(name, map(instance_of, views), map(seen_of, files))
            self._files, self._views, self._fresh, self._fresh_entries, self._places = [], [], {}, set(), set()
            self._name = ""
            self.lost = self._ledger.lost()
            self._rewrite()

    def apply_condition(self, condition: str) -> None:
        """Let entries that another condition excluded count as not known, so that they get a new row."""
        with writing(self._dest):
            if self._ledger.condition() != condition:
                self._ledger.forget_excluded(condition)

    def _recover(self) -> None:
        self._parts.prepare()
        difference = compare(self._parts, self._ledger)
        recover(difference, self._parts, self._ledger)
        for part in difference.damaged:
            self._parts.set_aside(*part)
        self.repaired = tuple(self._parts.place(*part) for part in difference.repaired)
        self._rewrite()
        self._withdraw_objects()
        self._last = max(self._ledger.parts(), default="")
        self._had_unreadable = self._ledger.has_unreadable()
        self.lost = self._ledger.lost()

    def _rewrite(self) -> None:
        """Write the parts again without rows that were replaced by later ones, and with notices of ambiguous UIDs."""
        for name in self._ledger.to_rewrite():
            parts = {VIEWS: ("instance", self._ledger.instance_part), FILES: ("entry", self._ledger.entry_part)}
            for table, (key, part_of) in parts.items():
                rows = self._parts.read(table, name)
                kept = [row for row in rows if part_of(row[key]) == name]
                if table == VIEWS:
                    kept = list(map(self._noted, kept))
                if kept != rows:
                    self._parts.publish(table, name, kept)
            self._ledger.rewritten(name)

    def _noted(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of `views`; if its UID is ambiguous, with the notice, and after its SEG and SR were withdrawn."""
        if not self._ledger.is_ambiguous(row["instance"]):
            return row
        lacking = [NO_DICOM] if withdraw(self._objects, row["instance"]) else []
        notices = dict.fromkeys([*row["notices"], *lacking, AMBIGUOUS_UID])
        return row | {"notices": list(notices), "reason": row["reason"] or AMBIGUOUS_REASON}

    def _withdraw_objects(self) -> None:
        """Remove SEG and SR that a killed run, or a node that was cut off, wrote after they had been withdrawn."""
        if self._objects.folder.exists():
            for instance in self._ledger.ambiguous():
                withdraw(self._objects, instance)

    def _next_name(self) -> str:
        last = max((int(name[5:11]) for name in self._ledger.parts()), default=0)
        return f"part-{last + 1:06}"


def require_same_key(dest: Path, identifiers: Identifiers) -> None:
    """Raises UsageError if the tables in `dest` have identifiers of another key, or as stored and not by a key."""
    with writing(dest):
        if dest.exists() and not dest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, _NO_FOLDER)
        path = dest / _KEY
        if path.exists():
            identifiers.check_key(path.read_text("ascii").strip())
        elif any(dest.glob("*/bundle=*/part-*.parquet")):
            identifiers.check_key("")


def _record_key(dest: Path, identifiers: Identifiers) -> None:
    require_same_key(dest, identifiers)
    path = dest / _KEY
    if identifiers.fingerprint and not path.exists():
        draft = dest / f"{TEMPORARY}{_KEY}"
        draft.write_text(f"{identifiers.fingerprint}\n", "ascii")
        draft.replace(path)


@contextmanager
def known_entries(
    dest: Path, digest: str, condition: str = "", kept: Kept | None = None
) -> Iterator[Callable[[str], bool]]:
    """Context with the test whether a run would leave out the entry with an id; changes nothing in `dest`.

    `condition`, `kept`: of the run. Where ledger and parts differ, a temporary copy of the ledger is made to agree.
    """
    with writing(dest), ExitStack() as stack:
        ledger = _agreeing(dest, digest, stack)
        rule = kept or Kept()
        if ledger.condition() != condition:
            rule = replace(rule, tried_again=rule.tried_again | {EXCLUDED})
        yield lambda entry: rule.entry(ledger, entry) is not None


def _agreeing(dest: Path, digest: str, stack: ExitStack) -> Ledger:
    """The ledger, or a copy of it, that agrees with the parts; closed with `stack`."""
    path = ledger_path(dest, digest)
    ledger = Ledger(path, scratch=not path.exists())
    stack.callback(ledger.close)
    parts = Parts(dest, digest, ledger)
    difference = compare(parts, ledger)
    if difference.changes_ledger:
        ledger = Ledger(path, scratch=True)
        stack.callback(ledger.close)
        recover(difference, parts, ledger)
    return ledger


def ledger_path(dest: Path, digest: str) -> Path:
    """Path of the ledger of a partition."""
    return dest / f"ledger-{digest}.db"


@contextmanager
def writing(dest: Path) -> Iterator[None]:
    """Context that raises OSError and sqlite3.Error of the block as UsageError."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise UsageError(f"cannot write to {dest}{_reason(error)}") from error
    except sqlite3.Error as error:
        raise UsageError(
            f"the index {dest}/ledger-*.db is damaged ({error}): delete it, and run the same command again, which "
            "makes it again from the tables"
        ) from error


def make_folder(dest: Path) -> None:
    """Make the folder of a data set. Raises UsageError if that fails."""
    with writing(dest):
        dest.mkdir(parents=True, exist_ok=True)


@contextmanager
def marker_in(dest: Path) -> Iterator[Path]:
    """Context with a file in the folder of a data set, which each node that writes there must see."""
    make_folder(dest)
    with writing(dest):
        number, name = tempfile.mkstemp(prefix=".seen-by-all-", dir=dest)
        os.close(number)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _reason(error: OSError | sqlite3.OperationalError) -> str:
    """Why a data set cannot be written, and what to do."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EEXIST, errno.ENOTDIR):
        return f": {_NO_FOLDER}: choose another --out"
    if isinstance(error, OSError) and number not in _ON_DISKS:
        expected = "a folder on a file system for files"
        return f" ({error.strerror}), expected {expected}: choose another --out, or check the disk"
    advice = unwritable(error) if isinstance(error, OSError) else f"({error}): free disk space"
    return f" {advice}, and run the same command again. What was recorded before is intact"


@contextmanager
def _locked(dest: Path) -> Iterator[None]:
    with open_lock(dest / "lock") as file:
        if not try_lock(file):
            raise UsageError(f"another glam-deploy archive writes to {dest}: wait for it or choose another --out")
        yield

"""The result of archive runs: Parquet parts of two tables, and the ledger of what they have.

    DEST/
      views/bundle=<digest>/part-*.parquet   one row for each distinct instance
      files/bundle=<digest>/part-*.parquet   one row for each entry of the source
      ledger-<digest>.db                     ids of all rows (ledger.py); made again from the parts if it is missing
      pseudonyms                             fingerprint of the key, if identifiers are pseudonyms
      device.uid                             device UID of the objects (objects.py)
      lock                                   held by the process that writes

A part is written to a temporary file, synchronized and renamed; after that the ledger records it in one transaction. A
process that is killed in between leaves a part that the ledger does not know: the next one reads and records it. The
row that was recorded last for an id replaces one in an earlier part, which is then written again without it.
"""

import fcntl
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glam_deploy.archive.identifiers import UIDS, Identifiers
from glam_deploy.archive.ledger import Instance, Ledger, Seen
from glam_deploy.archive.objects import ObjectPlan, synchronize
from glam_deploy.archive.rows import DONE, EXCLUDED, FAILED, SCORES, UNREADABLE, FileRow, ViewRow
from glam_deploy.errors import UsageError, unwritable

if TYPE_CHECKING:
    import pyarrow as pa

VIEWS, FILES = "views", "files"
RETRIED = frozenset({FAILED, UNREADABLE})
"""Outcomes that are tried again on request."""
_TEMPORARY = ".unfinished-"
_PART = re.compile(r"part-\d{6,}")
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

    def entry(self, ledger: Ledger, key: str) -> bool:
        """Whether the entry with this id has a row that stays."""
        seen = ledger.entry(key)
        return seen is not None and self._stays(seen.outcome, seen.instance)

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
        self._views: list[ViewRow] = []
        self._files: list[FileRow] = []
        self._fresh: dict[str, Instance] = {}
        self._fresh_entries: set[str] = set()
        self._name = ""
        self.repaired: tuple[str, ...] = ()
        """Parts that were missing or damaged when the data set was opened; their images are tried again."""
        self._stack = ExitStack()

    def __enter__(self) -> "Dataset":
        with self._stack as stack, writing(self._dest):
            for table in (VIEWS, FILES):
                self._folder(table).mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(self._dest))
            _record_key(self._dest, self._identifiers)
            self._ledger = Ledger(self._dest / f"ledger-{self._digest}.db")
            stack.callback(self._ledger.close)
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
        return entry in self._fresh_entries or self._kept.entry(self._ledger, entry)

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

    def outcomes(self) -> dict[str, int]:
        """Outcome -> number of entries, of all runs into this partition."""
        return self._ledger.outcomes()

    def add(self, file: FileRow, view: ViewRow | None = None) -> None:
        """Add the row of an entry, and that of its instance if this is its first; `flush` makes them permanent."""
        # the view first: Ctrl-C may come between the two, and an entry without its instance would be lost
        if view is not None:
            self._views.append(view)
            self._fresh[view.instance] = _instance(view.to_arrow())
        self._files.append(file)
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
                    self._publish(table, name, _table(table, rows))
            self._ledger.record(name, map(_instance, views), map(_seen, files))
            self._files, self._views, self._fresh, self._fresh_entries = [], [], {}, set()
            self._name = ""
            self._rewrite()

    def apply_condition(self, condition: str) -> None:
        """Let entries that another condition excluded count as not known, so that they get a new row."""
        with writing(self._dest):
            if self._ledger.condition() != condition:
                self._ledger.forget_excluded(condition)

    def _recover(self) -> None:
        for table in (VIEWS, FILES):
            for left in self._folder(table).glob(f"{_TEMPORARY}*"):
                left.unlink()
        whole = {table: self._whole_parts(table) for table in (VIEWS, FILES)}
        for name in sorted(self._ledger.parts()):
            rows = zip((VIEWS, FILES), self._ledger.rows_of(name), strict=True)
            if any(count and name not in whole[table] for table, count in rows):
                self._ledger.forget_part(name)
                self.repaired += (name,)
        names = whole[VIEWS] | whole[FILES]
        for name in sorted(names - self._ledger.parts()):
            views, files = (self._read(table, name) for table in (VIEWS, FILES))
            self._ledger.record(name, map(_instance, views), map(_seen, files))
        self._rewrite()

    def _whole_parts(self, table: str) -> set[str]:
        """Names of the parts that can be read; a damaged one is renamed, so that no program reads it.

        Raises UsageError for a Parquet file of somebody else, whose rows every reader of the table would get.
        """
        found = set()
        for path in sorted(self._folder(table).glob("*.parquet")):
            if not _PART.fullmatch(path.stem) or (known := _columns(path)) not in (None, schema(table).names):
                raise UsageError(f"{path} is no part of this data set: move it out of the folder")
            if known is None:
                path.replace(path.with_name(f".damaged-{path.stem}"))
            else:
                found.add(path.stem)
        return found

    def _rewrite(self) -> None:
        """Write the parts again without rows that were replaced by later ones."""
        for name in self._ledger.to_rewrite():
            parts = {VIEWS: ("instance", self._ledger.instance_part), FILES: ("entry", self._ledger.entry_part)}
            for table, (key, part_of) in parts.items():
                rows = self._read(table, name)
                kept = [row for row in rows if part_of(row[key]) == name]
                if len(kept) < len(rows):
                    self._publish(table, name, _table(table, kept))
            self._ledger.rewritten(name)

    def _next_name(self) -> str:
        last = max((int(name[5:11]) for name in self._ledger.parts()), default=0)
        return f"part-{last + 1:06}"

    def _folder(self, table: str) -> Path:
        return self._dest / table / f"bundle={self._digest}"

    def _read(self, table: str, name: str) -> list[dict[str, Any]]:
        """Rows of a part with the columns that the ledger and `_rewrite` need; [] if the table has no such part."""
        import pyarrow.parquet as pq

        path = self._folder(table) / f"{name}.parquet"
        rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist() if path.exists() else []
        return rows

    def _publish(self, table: str, name: str, content: "pa.Table") -> None:
        """Write a part; it is complete under its name, or not there."""
        import pyarrow.parquet as pq

        folder = self._folder(table)
        draft = folder / f"{_TEMPORARY}{name}"
        try:
            with draft.open("wb") as file:
                pq.write_table(content, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(folder / f"{name}.parquet")
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        synchronize(folder)


def require_same_key(dest: Path, identifiers: Identifiers) -> None:
    """Raises UsageError if the tables in `dest` have identifiers of another key, or as stored and not by a key."""
    with writing(dest):
        path = dest / _KEY
        if path.exists():
            identifiers.check_key(path.read_text("ascii").strip())
        elif any(dest.glob("*/bundle=*/part-*.parquet")):
            identifiers.check_key("")


def _record_key(dest: Path, identifiers: Identifiers) -> None:
    require_same_key(dest, identifiers)
    path = dest / _KEY
    if identifiers.fingerprint and not path.exists():
        draft = dest / f"{_TEMPORARY}{_KEY}"
        draft.write_text(f"{identifiers.fingerprint}\n", "ascii")
        draft.replace(path)


def _columns(path: Path) -> list[str] | None:
    """Columns of a Parquet file; None if it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names: list[str] = pq.read_schema(path).names
    except pa.ArrowException:
        return None
    return names


@contextmanager
def known_entries(
    dest: Path, digest: str, condition: str = "", kept: Kept | None = None
) -> Iterator[Callable[[str], bool]]:
    """Context with the test whether a run would leave out the entry with an id, by the ledger as it is.

    Changes no rows. `condition`, `kept`: of the run.
    """
    path = dest / f"ledger-{digest}.db"
    if not path.exists():
        yield lambda entry: False
        return
    with writing(dest), closing(Ledger(path)) as ledger:
        rule = kept or Kept()
        if ledger.condition() != condition:
            rule = replace(rule, tried_again=rule.tried_again | {EXCLUDED})
        yield lambda entry: rule.entry(ledger, entry)


def schema(table: str) -> "pa.Schema":
    """Schema of a table, without the column `bundle` of the partition's folder."""
    import pyarrow as pa

    text = pa.string()
    if table == FILES:
        texts = ("entry", "instance", "location", "version", "sha256", "outcome", "reason")
        return pa.schema([*((name, text) for name in texts), ("bytes", pa.int64())])
    box = pa.struct([(name, pa.int32()) for name in ("top", "left", "bottom", "right")])
    return pa.schema(
        [
            *((name, text) for name in ("instance", "entry", "sha256", "location", "patient", *UIDS.values())),
            *((name, text) for name in ("kind", "view", "status")),
            *((name, pa.float32()) for name in SCORES),
            ("patches", pa.list_(box)),
            ("notices", pa.list_(text)),
            ("error", text),
            ("reason", text),
            ("timings_ms", pa.map_(text, pa.float64())),
            ("time_ms", pa.float64()),
            *((name, text) for name in ("engine", "bundle_id", "gate", "made_by")),
        ]
    )


def _table(table: str, rows: Sequence[dict[str, object]]) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema(table))


def _instance(row: dict[str, Any]) -> Instance:
    return Instance(id=row["instance"], status=row["status"], entry=row["entry"])


def _seen(row: dict[str, Any]) -> Seen:
    return Seen(id=row["entry"], outcome=row["outcome"], instance=row["instance"])


@contextmanager
def writing(dest: Path) -> Iterator[None]:
    """Context that raises OSError and sqlite3.Error of the block as UsageError."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        reason = unwritable(error) if isinstance(error, OSError) else f"({error}): free disk space"
        raise UsageError(
            f"cannot write to {dest} {reason}, and run the same command again. What was recorded before is intact"
        ) from error
    except sqlite3.Error as error:
        raise UsageError(
            f"the index {dest}/ledger-*.db is damaged ({error}): delete it, and run the same command again, which "
            "makes it again from the tables"
        ) from error


@contextmanager
def _locked(dest: Path) -> Iterator[None]:
    with (dest / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another glam-deploy archive writes to {dest}: wait for it or choose another --out"
            ) from error
        yield

"""Index of what an archive run has recorded: an SQLite database beside the Parquet parts, with one writer.

Besides the checksums of the parts, and what was lost with a damaged one, it has nothing that the parts have not, and is
made again from them if it is missing (`recovery`).
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glam_deploy.archive.rows import EXCLUDED, UNREADABLE

_VERSION = 3
"""Of the tables; a ledger with others is emptied, and made again."""
_SCHEMA = (
    "part (name TEXT PRIMARY KEY) WITHOUT ROWID",
    # uid: as of `uid_key`; result: as of `recovery.result_key`
    "instance (id TEXT PRIMARY KEY, status TEXT, entry TEXT, reason TEXT, uid BLOB, result, part TEXT) WITHOUT ROWID",
    # place: location of an entry that could not be read, else NULL
    "entry (id TEXT PRIMARY KEY, outcome TEXT, instance TEXT, place TEXT, part TEXT) WITHOUT ROWID",
    "checksum (path TEXT, sha256 TEXT, PRIMARY KEY (path, sha256)) WITHOUT ROWID",
    "lost (id TEXT PRIMARY KEY) WITHOUT ROWID",
    "rewrite (part TEXT PRIMARY KEY) WITHOUT ROWID",
    "ambiguous (uid BLOB PRIMARY KEY) WITHOUT ROWID",
    "condition (id INTEGER PRIMARY KEY, text TEXT)",
)
_INDEXES = tuple(
    f"CREATE INDEX {column} ON {table} ({column}) WHERE {column} IS NOT NULL"
    for table, column in (("entry", "place"), ("instance", "uid"))
)
_AMBIGUOUS = (
    "REPLACE INTO ambiguous SELECT uid FROM instance WHERE uid = ? GROUP BY 1 HAVING min(result) != max(result)",
    "INSERT OR IGNORE INTO rewrite SELECT part FROM ambiguous CROSS JOIN instance USING (uid) WHERE uid = ?",
)
"""Note a UID that instances with different results have, and the parts with their rows."""
_ORPHAN = "instance != '' AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.id = entry.instance)"
"""Condition of an entry whose instance has no row."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A distinct instance that has a row."""

    id: str
    status: str
    entry: str
    """The entry that it was read from."""
    reason: str
    """As in its row."""
    uid: bytes | None
    """As of `uid_key`; None also for an instance that does not make its UID ambiguous."""
    result: bytes
    """As of `recovery.result_key`."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An entry that has a row."""

    id: str
    outcome: str
    """"" if it is to be tried again."""
    instance: str
    location: str = ""
    """As in its row; recorded of an entry that could not be read."""


def uid_key(uid: str) -> bytes | None:
    """Key of a SOPInstanceUID: 16 bytes of its SHA-256, a quarter of the space of the text; None for ""."""
    return hashlib.sha256(uid.encode()).digest()[:16] if uid else None


class Ledger:
    """The index of one partition. Raises sqlite3.Error, for a full disk too."""

    def __init__(self, path: Path, *, scratch: bool = False) -> None:
        """`scratch`: a copy that SQLite removes at the end, empty if there is no file."""
        self._connection = sqlite3.connect("" if scratch else path, isolation_level=None)
        if scratch and path.exists():
            with closing(sqlite3.connect(path)) as origin:
                origin.backup(self._connection)
        # with FULL a recorded transaction also survives the loss of power; a journal file works on network disks too
        self._connection.execute("PRAGMA synchronous = FULL")
        if next(self._rows("PRAGMA user_version"))[0] != _VERSION:
            self._make()

    def _make(self) -> None:
        with self.transaction():
            for (name,) in list(self._rows("SELECT name FROM sqlite_master WHERE type = 'table'")):
                self._connection.execute(f"DROP TABLE {name}")
            for statement in (*(f"CREATE TABLE {table}" for table in _SCHEMA), *_INDEXES):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Context whose changes are all made, or none; in another one, a part of that."""
        if self._connection.in_transaction:
            yield
            return
        with self._connection:
            self._connection.execute("BEGIN")
            yield

    def parts(self) -> frozenset[str]:
        """Names of the recorded parts."""
        return frozenset(name for (name,) in self._rows("SELECT name FROM part"))

    def instance(self, key: str) -> Instance | None:
        """The instance with this id, if it has a row."""
        row = next(self._rows("SELECT status, entry, reason, uid, result FROM instance WHERE id = ?", key), None)
        return Instance(id=key, status=row[0], entry=row[1], reason=row[2], uid=row[3], result=row[4]) if row else None

    def entry(self, key: str) -> Seen | None:
        """The entry with this id, if it has a row."""
        row = next(self._rows("SELECT outcome, instance FROM entry WHERE id = ?", key), None)
        return Seen(id=key, outcome=row[0], instance=row[1]) if row else None

    def outcomes(self) -> dict[str, int]:
        """Outcome -> number of entries."""
        return dict(self._rows("SELECT outcome, count(*) FROM entry GROUP BY outcome"))

    def record(self, part: str, instances: Iterable[Instance], entries: Iterable[Seen]) -> None:
        """Record the rows of a part that is on the disk, in place of earlier ones with their ids; in one transaction.

        Parts with rows that were replaced, and those with an instance that has its UID in common with a recorded one
        of another result, are in `to_rewrite` until `rewritten`, also after this process was killed.
        """
        views = [(one.id, one.status, one.entry, one.reason, one.uid, one.result, part) for one in instances]
        files = [
            (one.id, one.outcome, one.instance, one.location if one.outcome == UNREADABLE else None, part)
            for one in entries
        ]
        with self.transaction():
            self._connection.execute("INSERT OR REPLACE INTO part VALUES (?)", (part,))
            for table, found, values in (("instance", views, "?, ?, ?, ?, ?, ?, ?"), ("entry", files, "?, ?, ?, ?, ?")):
                replaced = f"SELECT part FROM {table} WHERE id = ? AND part != ?"
                ids = ((row[0], part) for row in found)
                self._connection.executemany(f"INSERT OR IGNORE INTO rewrite {replaced}", ids)
                self._connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({values})", found)
            for statement in _AMBIGUOUS:
                self._connection.executemany(statement, ((uid,) for *_, uid, _, _ in views if uid))
            self._connection.executemany("DELETE FROM lost WHERE id = ?", ((row[0],) for row in files))

    def has_ambiguous(self, uid: bytes) -> bool:
        """Whether images with different results have the UID with this key."""
        return next(self._rows("SELECT 1 FROM ambiguous WHERE uid = ?", uid), None) is not None

    def is_ambiguous(self, key: str) -> bool:
        """Whether the instance with this id has its UID in common with another one, which may have no row any more."""
        return next(self._rows("SELECT 1 FROM instance JOIN ambiguous USING (uid) WHERE id = ?", key), None) is not None

    def ambiguous(self) -> Iterator[str]:
        """Ids of all instances of `is_ambiguous`; nothing may be recorded meanwhile."""
        return (key for (key,) in self._rows("SELECT id FROM ambiguous CROSS JOIN instance USING (uid)"))

    def has_unreadable(self) -> bool:
        """Whether there are entries that could not be read."""
        return next(self._rows("SELECT 1 FROM entry WHERE place IS NOT NULL"), None) is not None

    def replace_unreadable(self, places: Iterable[str], last: str, *, kept: Set[str]) -> None:
        """Forget entries at these locations that could not be read: those in parts up to `last`, without `kept`."""
        for place in places:
            for key, part in list(self._rows("SELECT id, part FROM entry WHERE place = ? AND part <= ?", place, last)):
                if key not in kept:
                    self._connection.execute("INSERT OR IGNORE INTO rewrite VALUES (?)", (part,))
                    self._connection.execute("DELETE FROM entry WHERE id = ?", (key,))

    def instance_part(self, key: str) -> str | None:
        """Name of the part with the row of the instance with this id."""
        return next((part for (part,) in self._rows("SELECT part FROM instance WHERE id = ?", key)), None)

    def entry_part(self, key: str) -> str | None:
        """Name of the part with the row of the entry with this id."""
        return next((part for (part,) in self._rows("SELECT part FROM entry WHERE id = ?", key)), None)

    def has_instances(self, part: str) -> bool:
        """Whether the row of an instance is in a part."""
        return next(self._rows("SELECT 1 FROM instance WHERE part = ?", part), None) is not None

    def has_entries(self, part: str) -> bool:
        """Whether the row of an entry is in a part."""
        return next(self._rows("SELECT 1 FROM entry WHERE part = ?", part), None) is not None

    def forget_instances(self, part: str) -> None:
        """Remove the instances whose row was in a part."""
        self._connection.execute("DELETE FROM instance WHERE part = ?", (part,))

    def forget_entries(self, part: str) -> None:
        """Remove the entries whose row was in a part; they count as lost until they have a row again."""
        self._connection.execute("INSERT OR IGNORE INTO lost SELECT id FROM entry WHERE part = ?", (part,))
        self._connection.execute("DELETE FROM entry WHERE part = ?", (part,))

    def forget_orphans(self) -> None:
        """Remove the entries whose instance has no row, so that they are tried again; they count as lost until then."""
        self._connection.execute(f"INSERT OR IGNORE INTO lost SELECT id FROM entry WHERE {_ORPHAN}")
        self._connection.execute(f"INSERT OR IGNORE INTO rewrite SELECT DISTINCT part FROM entry WHERE {_ORPHAN}")
        self._connection.execute(f"DELETE FROM entry WHERE {_ORPHAN}")

    def miss_owners(self) -> None:
        """Count the entries without a row from which an instance with a row was read as lost."""
        without = "NOT EXISTS (SELECT 1 FROM entry WHERE entry.id = instance.entry)"
        self._connection.execute(f"INSERT OR IGNORE INTO lost SELECT entry FROM instance WHERE {without}")

    def lost(self) -> int:
        """Number of entries that were in a part which is gone, and have no row yet."""
        return int(next(self._rows("SELECT count(*) FROM lost"))[0])

    def checksums(self, path: str) -> frozenset[str]:
        """SHA-256 of the contents that a part may have; empty if it is not known. `path`: relative to the data set."""
        return frozenset(digest for (digest,) in self._rows("SELECT sha256 FROM checksum WHERE path = ?", path))

    def expect(self, path: str, sha256: str) -> None:
        """Note the content that a part will have, if it is not killed before, besides the one that it has."""
        self._connection.execute("INSERT OR IGNORE INTO checksum VALUES (?, ?)", (path, sha256))

    def confirm(self, path: str, sha256: str) -> None:
        """Note the only content that a part may have."""
        with self.transaction():
            self._connection.execute("DELETE FROM checksum WHERE path = ? AND sha256 != ?", (path, sha256))
            self.expect(path, sha256)

    def condition(self) -> str | None:
        """The condition that excluded entries; None if it is not known, as in a ledger that was made again."""
        row = next(self._rows("SELECT text FROM condition"), None)
        return row[0] if row else None

    def forget_excluded(self, condition: str) -> None:
        """Set the outcome of what the condition before `condition` excluded to "", in one transaction."""
        with self.transaction():
            self._connection.execute("UPDATE entry SET outcome = '' WHERE outcome = ?", (EXCLUDED,))
            self._connection.execute("INSERT OR REPLACE INTO condition VALUES (1, ?)", (condition,))

    def to_rewrite(self) -> list[str]:
        """Parts with rows that later ones have replaced, or that are to get a notice."""
        return [name for (name,) in self._rows("SELECT part FROM rewrite ORDER BY part")]

    def rewritten(self, part: str) -> None:
        """Note that a part has only recorded rows again, with their notices."""
        self._connection.execute("DELETE FROM rewrite WHERE part = ?", (part,))

    def _rows(self, query: str, *values: str | bytes) -> Iterator[tuple[Any, ...]]:
        with closing(self._connection.execute(query, values)) as cursor:
            yield from cursor


class Repeats:
    """Which ids came before, in a temporary database of SQLite, so that memory does not grow with their number."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("CREATE TABLE known (id TEXT PRIMARY KEY) WITHOUT ROWID")

    def __call__(self, key: str) -> bool:
        """Whether this id came before."""
        return self._connection.execute("INSERT OR IGNORE INTO known VALUES (?)", (key,)).rowcount == 0

    def close(self) -> None:
        self._connection.close()

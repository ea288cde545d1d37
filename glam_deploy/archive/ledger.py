"""Index of what an archive run has recorded: an SQLite database beside the Parquet parts, with one writer.

It has nothing that the parts have not, and is made again from them if it is missing (`dataset.Dataset`).
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glam_deploy.archive.rows import EXCLUDED

_SCHEMA = """
CREATE TABLE IF NOT EXISTS part (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS instance (id TEXT PRIMARY KEY, status TEXT, entry TEXT, part TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (id TEXT PRIMARY KEY, outcome TEXT, instance TEXT, part TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rewrite (part TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS condition (id INTEGER PRIMARY KEY, text TEXT);
"""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A distinct instance that has a row."""

    id: str
    status: str
    entry: str
    """The entry that it was read from."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An entry that has a row."""

    id: str
    outcome: str
    """"" if it is to be tried again."""
    instance: str


class Ledger:
    """The index of one partition. Raises sqlite3.Error, for a full disk too."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        # with FULL a recorded transaction also survives the loss of power; a journal file works on network disks too
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        self._connection.close()

    def parts(self) -> frozenset[str]:
        """Names of the recorded parts."""
        return frozenset(name for (name,) in self._rows("SELECT name FROM part"))

    def instance(self, key: str) -> Instance | None:
        """The instance with this id, if it has a row."""
        row = next(self._rows("SELECT status, entry FROM instance WHERE id = ?", key), None)
        return Instance(id=key, status=row[0], entry=row[1]) if row else None

    def entry(self, key: str) -> Seen | None:
        """The entry with this id, if it has a row."""
        row = next(self._rows("SELECT outcome, instance FROM entry WHERE id = ?", key), None)
        return Seen(id=key, outcome=row[0], instance=row[1]) if row else None

    def outcomes(self) -> dict[str, int]:
        """Outcome -> number of entries."""
        return dict(self._rows("SELECT outcome, count(*) FROM entry GROUP BY outcome"))

    def record(self, part: str, instances: Iterable[Instance], entries: Iterable[Seen]) -> None:
        """Record the rows of a part that is on the disk, in place of earlier ones with their ids; in one transaction.

        Parts with rows that were replaced are in `to_rewrite` until `rewritten`, also after this process was killed.
        """
        with self._connection as transaction:
            transaction.execute("BEGIN")
            transaction.execute("INSERT OR REPLACE INTO part VALUES (?)", (part,))
            for table, found in (
                ("instance", [(one.id, one.status, one.entry, part) for one in instances]),
                ("entry", [(one.id, one.outcome, one.instance, part) for one in entries]),
            ):
                replaced = f"SELECT part FROM {table} WHERE id = ? AND part != ?"
                ids = ((row[0], part) for row in found)
                transaction.executemany(f"INSERT OR IGNORE INTO rewrite {replaced}", ids)
                transaction.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)", found)

    def instance_part(self, key: str) -> str | None:
        """Name of the part with the row of the instance with this id."""
        return next((part for (part,) in self._rows("SELECT part FROM instance WHERE id = ?", key)), None)

    def entry_part(self, key: str) -> str | None:
        """Name of the part with the row of the entry with this id."""
        return next((part for (part,) in self._rows("SELECT part FROM entry WHERE id = ?", key)), None)

    def rows_of(self, part: str) -> tuple[int, int]:
        """Number of instances and of entries whose row is in a part."""
        ((instances,),) = self._rows("SELECT count(*) FROM instance WHERE part = ?", part)
        ((entries,),) = self._rows("SELECT count(*) FROM entry WHERE part = ?", part)
        return instances, entries

    def forget_part(self, part: str) -> None:
        """Remove what a part has recorded, and all entries of its instances, so that they are tried again."""
        gone = "part = ? OR instance IN (SELECT id FROM instance WHERE part = ?)"
        with self._connection as transaction:
            transaction.execute("BEGIN")
            transaction.execute("INSERT OR IGNORE INTO rewrite VALUES (?)", (part,))
            transaction.execute(
                f"INSERT OR IGNORE INTO rewrite SELECT DISTINCT part FROM entry WHERE {gone}", (part, part)
            )
            transaction.execute(f"DELETE FROM entry WHERE {gone}", (part, part))
            transaction.execute("DELETE FROM instance WHERE part = ?", (part,))

    def condition(self) -> str | None:
        """The condition that excluded entries; None if it is not known, as in a ledger that was made again."""
        row = next(self._rows("SELECT text FROM condition"), None)
        return row[0] if row else None

    def forget_excluded(self, condition: str) -> None:
        """Set the outcome of what the condition before `condition` excluded to "", in one transaction."""
        with self._connection as transaction:
            transaction.execute("BEGIN")
            transaction.execute("UPDATE entry SET outcome = '' WHERE outcome = ?", (EXCLUDED,))
            transaction.execute("INSERT OR REPLACE INTO condition VALUES (1, ?)", (condition,))

    def to_rewrite(self) -> list[str]:
        """Parts that still have rows which later ones have replaced."""
        return [name for (name,) in self._rows("SELECT part FROM rewrite ORDER BY part")]

    def rewritten(self, part: str) -> None:
        """Note that a part has only recorded rows again."""
        self._connection.execute("DELETE FROM rewrite WHERE part = ?", (part,))

    def _rows(self, query: str, *values: str) -> Iterator[tuple[Any, ...]]:
        with closing(self._connection.execute(query, values)) as cursor:
            yield from cursor

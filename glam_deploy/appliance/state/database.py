"""Opening `state.db`, transactions on it, and the appliance's monotonic clock, whose offset it stores.

Monotonic time counts seconds and only goes forward, across changes of the wall clock, restarts and reboots. Linux gives
the time since boot, equal for all processes; `state.db` stores for each boot the offset to add (table `steady`). Time
that the machine was off does not count, so a deadline can come later, never early.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from glam_deploy.errors import UsageError

VERSION = 3
"""`PRAGMA user_version`; raised when the schema changes. Version 1 is that of release 0.1.0."""

_FROM_VERSION_1 = (
    "ALTER TABLE instance ADD COLUMN patient TEXT",
    "ALTER TABLE quarantine ADD COLUMN replaced INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE job ADD COLUMN lease INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE job ADD COLUMN sources TEXT NOT NULL DEFAULT ''",
    "UPDATE job SET sources = key",
)
_FROM_VERSION_2 = ("ALTER TABLE study ADD COLUMN priority INTEGER NOT NULL DEFAULT 1",)
_CHANGES: Mapping[int, tuple[str, ...]] = MappingProxyType({1: _FROM_VERSION_1 + _FROM_VERSION_2, 2: _FROM_VERSION_2})
"""Version -> changes to its tables; tables that it does not have are made from schema.sql."""

BUSY_SECONDS = 30.0
"""How long a writer waits for another one; each holds the write lock for milliseconds."""

_BUSY_RETRY_S = 0.01

MonotonicClock = Callable[[], float]
"""Returns the monotonic time now, in seconds."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
HEARTBEAT_TIMEOUT_S = 15.0
"""A process, which writes a heartbeat every second, is reported as silent after this time without one."""


def open_database(path: Path, *, one_thread: bool = True) -> sqlite3.Connection:
    """A connection to the database at `path`, created with its tables if missing. Use one connection per thread.

    Without `one_thread` several threads may use it, one at a time, which the caller must ensure. Autocommit outside of
    `transaction`; rows are `sqlite3.Row`. A commit is on the disk when it returns (WAL, synchronous FULL). A database
    of an earlier version is converted, and a copy of it kept beside it. Raises UsageError if the file is not an
    appliance's database or has another version.
    """
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=one_thread)
        connection.row_factory = sqlite3.Row
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        with transaction(connection):
            _make_tables(connection, path)
    except (sqlite3.DatabaseError, OSError) as error:
        raise UsageError(
            f"{path} cannot be opened as the appliance's state ({error}): check the data folder"
        ) from error
    return connection


def reason_of(error: sqlite3.Error) -> str:
    """The message of SQLite, or the class of another error of its module, whose text may quote a value."""
    return str(error) if getattr(error, "sqlite_errorname", "") else type(error).__name__


def _use_wal(connection: sqlite3.Connection) -> None:
    """Set the journal mode, which is stored in the file.

    While another connection makes the same new database, SQLite reports this statement as busy at once, whatever the
    connection's timeout (found with 3.40.1).
    """
    latest = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= latest:
                raise
        time.sleep(_BUSY_RETRY_S)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Run the block in a transaction: commit at its end, roll back after an exception.

    The write lock is taken at the beginning, so that no step inside can meet another writer.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # after a full disk SQLite has already rolled back
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or bring those of an earlier version to `VERSION`; in the caller's transaction."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    existing = {row["name"] for row in connection.execute("SELECT name FROM sqlite_schema")}
    if version in _CHANGES:
        _keep_copy(path, version)
    elif version or existing:
        raise UsageError(
            f"{path} has schema version {version}, expected {VERSION}: use the release that made this data folder, "
            "or set an empty folder as `data`"
        )
    for statement in _CHANGES.get(version, ()):
        connection.execute(statement)
    make_tables(connection, existing=existing)


def make_tables(connection: sqlite3.Connection, *, existing: Collection[str] = ()) -> None:
    """Make the tables and indices of this release that are not among `existing`."""
    for statement in _statements():
        if _name(statement) not in existing:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether the database has the tables of this release."""
    return bool(connection.execute("PRAGMA user_version").fetchone()[0] == VERSION)


def earlier_version(connection: sqlite3.Connection) -> int | None:
    """The schema version of a database that the first start of this release converts; None for any other."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    return version if version in _CHANGES else None


def _keep_copy(path: Path, version: int) -> None:
    """Copy the database to `state.db.version-N` before its schema changes, so that the earlier release can use it."""
    copy = path.with_name(f"{path.name}.version-{version}")
    part = copy.with_name(f".{copy.name}.part")
    part.unlink(missing_ok=True)
    copy_database(path, part)
    part.replace(copy)


def copy_database(path: Path, copy: Path) -> None:
    """Copy the database at `path`, in use or not, as of one moment, to the new or empty file `copy`, durably.

    Raises OSError and sqlite3.Error.
    """
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # one file, without a write-ahead log
    with copy.open("rb") as file:
        os.fsync(file.fileno())


def immutable_address(path: Path) -> str:
    """The URI of a database that nobody writes to, to read it without locks or files beside it."""
    return f"{path.absolute().as_uri()}?immutable=1"


def _statements() -> list[str]:
    """The statements of schema.sql. (`executescript` would commit the open transaction, so that two first starts
    collide.)
    """
    text = files(__package__).joinpath("schema.sql").read_text("utf-8")
    bare = "\n".join(line.partition("--")[0] for line in text.splitlines())
    return [statement for statement in bare.split(";") if statement.strip()]


def _name(statement: str) -> str:
    """Name of the table or index that a CREATE statement makes."""
    return statement.split()[2]


def monotonic_clock(
    connection: sqlite3.Connection, *, boot_id: str | None = None, since_boot: MonotonicClock | None = None
) -> MonotonicClock:
    """The monotonic clock of this boot; the first call after a boot writes its offset, others read it.

    `boot_id`, `since_boot`: those of the machine by default; tests set others.
    """
    boot_id = boot_id or _BOOT_ID.read_text("ascii").strip()
    since_boot = since_boot or _since_boot
    base = _base(connection, boot_id, since_boot())
    return lambda: base + since_boot()


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _base(connection: sqlite3.Connection, boot_id: str, since_boot: float) -> float:
    """The offset of this boot, such that now is not earlier than any time written before."""
    known = _known_base(connection, boot_id)
    if known is not None:
        return known
    with connection:
        connection.execute(
            "INSERT OR IGNORE INTO steady SELECT ?, max(0.0, coalesce(max(t), 0.0) - ?) FROM ("
            "SELECT max(touched) AS t FROM study UNION ALL SELECT max(beat) FROM component)",
            (boot_id, since_boot),
        )
    base = _known_base(connection, boot_id)
    assert base is not None
    return base


def _known_base(connection: sqlite3.Connection, boot_id: str) -> float | None:
    row = connection.execute("SELECT base FROM steady WHERE boot_id = ?", (boot_id,)).fetchone()
    return None if row is None else float(row[0])


def add_event(connection: sqlite3.Connection, study_uid: str, what: str, detail: str = "") -> None:
    """Add a line to the study's timeline, in the transaction that it describes. `detail` must hold no identifier."""
    connection.execute(
        "INSERT INTO event (study_uid, at, what, detail) VALUES (?, ?, ?, ?)", (study_uid, time.time(), what, detail)
    )


def record_heartbeat(
    connection: sqlite3.Connection, monotonic: MonotonicClock, name: str, state: str, detail: Mapping[str, Any]
) -> None:
    """Store the state of a process, or of a target ("target:NAME"); `detail` is JSON-ready and holds no identifier."""
    connection.execute(
        "INSERT OR REPLACE INTO component (name, state, detail, beat, at) VALUES (?, ?, ?, ?, ?)",
        (name, state, json.dumps(detail), monotonic(), time.time()),
    )


def last_heartbeats(connection: sqlite3.Connection) -> dict[str, float]:
    """Name -> monotonic time of the last heartbeat."""
    return {row["name"]: row["beat"] for row in connection.execute("SELECT name, beat FROM component")}


def last_state(connection: sqlite3.Connection, name: str) -> str | None:
    """The state in the last heartbeat of a process; None if it never wrote one."""
    row = connection.execute("SELECT state FROM component WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row["state"])

"""Opening `state.db`, and transactions on it. The only owner of the connection's settings."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from glam_deploy.errors import UsageError

VERSION = 1
"""`PRAGMA user_version`; raised when the schema changes."""

BUSY_SECONDS = 30.0
"""How long a writer waits for another; each holds the file for milliseconds."""


def open_database(path: Path, *, one_thread: bool = True) -> sqlite3.Connection:
    """A connection to `path`, made with its tables where it is missing. One connection a thread.

    Without `one_thread` several may use it, one at a time: the caller sees to that. Autocommit outside `transaction`;
    rows are `sqlite3.Row`. A commit is on the disk when it returns (WAL, synchronous FULL). Raises UsageError where the
    file is not ours or of another version.
    """
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=one_thread)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        with transaction(connection):
            _make_tables(connection, path)
    except sqlite3.DatabaseError as error:
        raise UsageError(
            f"{path} cannot be opened as the appliance's state ({error}): check the data folder"
        ) from error
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of the block or nothing of it; the right to write is taken at once, so that no step inside meets another."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has undone it by itself where the disk was full
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    if version or connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
        raise UsageError(
            f"{path} is of version {version}, expected {VERSION}: keep the data folder with the release that made it, "
            "or name an empty one"
        )
    for statement in _statements():
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _statements() -> list[str]:
    """`executescript` would commit what it finds open, so that two first starts could meet."""
    text = files(__package__).joinpath("schema.sql").read_text("utf-8")
    bare = "\n".join(line.partition("--")[0] for line in text.splitlines())
    return [statement for statement in bare.split(";") if statement.strip()]

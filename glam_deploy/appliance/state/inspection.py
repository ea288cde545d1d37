"""What `doctor` asks of `state.db`: reads only."""

import sqlite3


def damage(connection: sqlite3.Connection) -> str:
    """What SQLite finds wrong with the file; "" where it is sound."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return "" if found == "ok" else str(found)


def is_damage(error: Exception) -> bool:
    """Whether SQLite could not read the file because it is no database, or a broken one."""
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_CORRUPT", "SQLITE_NOTADB")


def newest_at(connection: sqlite3.Connection) -> float:
    """The latest wall clock time that was written, seconds since 1970; 0 where nothing was."""
    (component,) = connection.execute("SELECT max(at) FROM component").fetchone()
    instance = connection.execute("SELECT received_at FROM instance ORDER BY arrival DESC LIMIT 1").fetchone()
    return max(component or 0.0, instance[0] if instance else 0.0)

"""Copies of a data folder, and how they are damaged."""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from glam_deploy.appliance.backup.manifest import CopyFolder


def newest_state(copy: CopyFolder) -> Path:
    (path,) = copy.root.glob("state-*.db")
    return path


def spoil_table(database: Path, table: str) -> None:
    """A bad block at the root of a table; no connection is open."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def edit(copy: CopyFolder, **changes: object) -> None:
    copy.manifest.write_text(json.dumps(json.loads(copy.manifest.read_text()) | changes))


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)

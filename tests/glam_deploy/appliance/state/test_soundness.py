"""Paths in a state: those that a query passes need no second look."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import product

import pytest

from glam_deploy.appliance.state.database import make_tables
from glam_deploy.appliance.state.soundness import foreign_content

PARTS = ("", ".", "..", "spool", "results", "a", ".a", "a..", "\0")
NAMES = [*("/".join(parts) for length in (1, 2, 3) for parts in product(PARTS, repeat=length)), b"spool/a", 7]


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as made:
        made.row_factory = sqlite3.Row
        make_tables(made)
        made.execute("PRAGMA foreign_keys = 0")
        made.execute("PRAGMA ignore_check_constraints = 1")
        yield made


def leads_out(name: object) -> bool:
    """By its parts: below a folder of the data folder, and nowhere up; "." and "//" mean nothing in a path (POSIX)."""
    if not isinstance(name, str) or "\0" in name or name.startswith("/"):
        return True
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return len(parts) < 2 or parts[0] not in ("spool", "results", "quarantine") or ".." in parts


def test_every_path_that_leads_out_is_seen(connection: sqlite3.Connection) -> None:
    columns = [row["name"] for row in connection.execute("PRAGMA table_info(parcel_object)")]
    assert foreign_content(connection) == ""
    for name in NAMES:
        connection.execute("DELETE FROM parcel_object")
        row = [name if column == "path" else "1" for column in columns]
        connection.execute(f"INSERT INTO parcel_object VALUES ({', '.join('?' * len(row))})", row)
        found = foreign_content(connection)
        assert ("leads out of the data folder" in found) == leads_out(name), name

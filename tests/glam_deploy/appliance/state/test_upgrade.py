"""A `state.db` of an earlier version works with this release.

`state_0_1_0.sql` is a dump of one, made by release 0.1.0; `state_version_2.sql` of the same, as the first code of
version 2 converted it.
"""

import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from glam_deploy.appliance.state import deliveries, jobs, overview, study_detail
from glam_deploy.appliance.state.database import VERSION, monotonic_clock, open_database
from glam_deploy.errors import UsageError

DUMPS = {1: "state_0_1_0.sql", 2: "state_version_2.sql"}
"""Schema version -> dump."""
DELIVERED, PENDING, DEAD = "1.2.1", "1.2.2", "1.2.3"
"""Study Instance UIDs by the state of the study."""


@pytest.fixture(params=DUMPS)
def before(request: pytest.FixtureRequest) -> int:
    """Version of the schema before the upgrade."""
    return int(request.param)


@pytest.fixture
def path(before: int, tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.executescript(Path(__file__).with_name(DUMPS[before]).read_text("utf-8"))
    return tmp_path / "state.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(path)) as connection:
        yield connection


def test_studies_have_the_stages_that_they_had(connection: sqlite3.Connection) -> None:
    found = {line.pseudonym: line.stage for line in study_detail.studies(connection)}
    stages = {DELIVERED: "delivered", PENDING: "sending", DEAD: "failed"}
    assert found == {f"name of {study}": stage for study, stage in stages.items()}
    counts = {one.stage: one.count for one in overview.backlog(connection) if one.count}
    assert counts == {"sending": 1, "failed": 1, "done": 2}


def test_a_pending_delivery_is_sent(connection: sqlite3.Connection) -> None:
    assert deliveries.next_delivery(connection, "pacs", 1999.0) is None
    delivery = deliveries.next_delivery(connection, "pacs", 2000.0)
    assert delivery is not None
    assert (delivery.study_uid, delivery.attempts) == (PENDING, 1)
    (unsent,) = deliveries.unproven(connection, delivery.id)
    deliveries.mark_proven(connection, delivery.id, [unsent.sop_uid])
    assert deliveries.complete(connection, delivery.id, proof=True)


def test_a_dead_job_is_retried(connection: sqlite3.Connection) -> None:
    jobs.retry(connection, 3)
    job = jobs.claim(connection, worker="host 3 4", now=3000.0, lease_s=30, attempts=3)
    assert job is not None
    assert job.study_uid == DEAD
    assert [view.sop_uid for view in jobs.job_views(connection, job)] == [f"{DEAD}.1"]


def test_studies_of_before_are_neither_urgent_nor_fetched(connection: sqlite3.Connection) -> None:
    assert {line.priority for line in study_detail.studies(connection)} == {""}
    assert {row["priority"] for row in connection.execute("SELECT priority FROM study")} == {1}


def test_monotonic_time_continues(connection: sqlite3.Connection) -> None:
    clock = monotonic_clock(connection, boot_id="the boot of the upgrade", since_boot=lambda: 5.0)
    assert clock() == 1000.0


def test_the_schema_of_a_new_database_is_the_same(path: Path, tmp_path: Path) -> None:
    """So that code which works with one works with the other."""

    def schema(database: Path) -> set[tuple[object, ...]]:
        with closing(open_database(database)) as connection:
            names = [row["name"] for row in connection.execute("SELECT name FROM sqlite_schema")]
            columns = {
                (name, *tuple(row)[1:]) for name in names for row in connection.execute(f"PRAGMA table_info({name})")
            }
            return columns | {(name,) for name in names}

    assert schema(path) == schema(tmp_path / "new.db")


def test_no_row_is_lost_and_a_copy_stays_for_the_earlier_release(path: Path, before: int) -> None:
    def dump(database: Path) -> dict[str, list[Any]]:
        with closing(sqlite3.connect(database)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            columns = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in tables}
            return {"version": [(version,)]} | {
                name: [
                    dict(zip(columns[name], row, strict=True)) for row in connection.execute(f"SELECT * FROM {name}")
                ]
                for name in tables
            }

    old = dump(path)
    open_database(path).close()
    assert dump(path.with_name(f"state.db.version-{before}")) == old
    after = dump(path)
    assert (old.pop("version"), after.pop("version")) == ([(before,)], [(VERSION,)])
    for table, rows in old.items():
        kept = [{column: row[column] for column in known} for row, known in zip(after[table], rows, strict=True)]
        assert kept == rows, table
    assert [path.name for path in path.parent.glob(".*")] == []


def test_processes_that_start_at_once_convert_it_once(path: Path, before: int) -> None:
    with ThreadPoolExecutor(5) as starting:
        versions = list(starting.map(_version, [path] * 5))
    assert versions == [VERSION] * 5
    with closing(sqlite3.connect(path.with_name(f"state.db.version-{before}"))) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (before,)


def _version(path: Path) -> int:
    with closing(open_database(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_a_copy_that_cannot_be_written_changes_nothing(
    path: Path, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(UsageError, match="No space left on device"):
        patch.setattr(os, "fsync", full)
        open_database(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (before,)
    assert _version(path) == VERSION


def test_a_database_of_a_later_release_is_refused_unchanged(tmp_path: Path) -> None:
    """What docs/releases.md promises for the way back: not one row is touched."""
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE later (a); INSERT INTO later VALUES (1)")
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        before = [*connection.iterdump()]
    with pytest.raises(UsageError, match=rf"has schema version {VERSION + 1}, expected {VERSION}"):
        open_database(path)
    with closing(sqlite3.connect(path)) as connection:
        assert [*connection.iterdump()] == before
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)

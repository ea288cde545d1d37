"""Processes and threads that make the same `state.db` at the same time."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier, Event

import pytest

from glam_deploy.appliance.state import database
from glam_deploy.appliance.state.database import VERSION, open_database
from glam_deploy.errors import UsageError


def journal_and_version(path: Path) -> tuple[str, int]:
    with closing(open_database(path)) as connection:
        (mode,), (version,) = (
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("journal_mode", "user_version")
        )
        return mode, version


def test_a_database_that_another_process_is_making_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, waited = tmp_path / "state.db", Event()
    monkeypatch.setattr(database.time, "sleep", lambda s: waited.set())
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as opening:
            found = opening.submit(journal_and_version, path)
            assert waited.wait(60)
            other.execute("ROLLBACK")
            assert found.result(60) == ("wal", VERSION)


def test_a_database_that_is_never_released_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.db"
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UsageError, match=r"state\.db cannot be opened .* \(database is locked\)"):
            open_database(path)


def test_many_first_starts(tmp_path: Path) -> None:
    together = Barrier(6)

    def start(path: Path) -> tuple[str, int]:
        together.wait(60)
        return journal_and_version(path)

    with ThreadPoolExecutor(6) as starting:
        for n in range(40):
            assert set(starting.map(start, [tmp_path / f"{n}.db"] * 6)) == {("wal", VERSION)}

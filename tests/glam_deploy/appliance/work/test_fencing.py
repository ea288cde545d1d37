"""A worker that stands still until another one has finished its job: it overwrites nothing when it goes on."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydicom import dcmread
from support.commands import start_process
from support.jobs import arrive, config_of, database_of, made, rows, send, worked
from support.kills import kill_config

from glam_deploy.appliance.config import Assemble
from glam_deploy.appliance.data import atomic_folder
from glam_deploy.appliance.state import jobs, studies
from glam_deploy.appliance.state.jobs import Job, JobViewOutcome
from glam_deploy.records import View

STOPPED = """
import logging, os, signal, sys, threading
from pathlib import Path
from support import kills
from glam_deploy.appliance.work import worker
logging.basicConfig(level=logging.INFO)
require_lease = worker.Worker._require_lease
def stand_still(self, holds_lease):
    require_lease(self, holds_lease)
    worker.Worker._require_lease = require_lease
    os.kill(os.getpid(), signal.SIGSTOP)
worker.Worker._require_lease = stand_still
worker.run(kills.kill_config(Path(sys.argv[1]), "random"), threading.Event(), loader=kills.stub)
"""
"""A worker that stops itself, all of its threads, when it holds the lease and is about to write its reports."""


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(database_of(made(config_of(tmp_path)))) as connection:
        arrive(connection, "1.1")
        studies.assemble_complete(connection, Assemble(quiet_s=0), 0.0)
        yield connection


def claimed(connection: sqlite3.Connection, now: float) -> Job:
    job = jobs.claim(connection, worker="the same worker", now=now, lease_s=30, attempts=9)
    assert job
    return job


def test_lease_that_was_lost_is_not_regained_with_the_next_one(connection: sqlite3.Connection) -> None:
    """Even where the name of the worker is the same."""
    first, placed = claimed(connection, 0.0), list[str]()
    assert jobs.claim(connection, worker="other", now=31.0, lease_s=30, attempts=9) is None
    second = claimed(connection, 33.0)
    assert (first.id, first.lease, second.lease) == (second.id, 1, 2)

    assert not jobs.renew(connection, first, until=99.0)
    jobs.release(connection, first)
    jobs.fail(connection, first, now=33.0, attempts=1, reason="made up")
    assert not jobs.record_outcomes(connection, first, [JobViewOutcome(sop_uid="1.1", outcome="failed")])
    assert not jobs.finish(connection, first, {}, place=lambda: placed.append("first"))
    assert jobs.finish(connection, second, {}, place=lambda: placed.append("second"))
    assert not jobs.finish(connection, second, {}, place=lambda: placed.append("again"))
    assert placed == ["second"]


def test_files_that_cannot_be_placed_leave_the_job_unfinished(connection: sqlite3.Connection) -> None:
    def full() -> None:
        raise OSError(28, os.strerror(28))

    job = claimed(connection, 0.0)
    with pytest.raises(OSError, match="No space"):
        jobs.finish(connection, job, {"pacs": []}, place=full)
    assert connection.execute("SELECT state FROM job").fetchone()[0] == "running"
    assert connection.execute("SELECT count(*) FROM parcel").fetchone()[0] == 0
    assert jobs.finish(connection, job, {"pacs": []})


def test_results_of_a_view_are_never_replaced(tmp_path: Path) -> None:
    """Also if another worker puts them there between the last look and the move."""
    target = tmp_path / "view"
    with atomic_folder(target) as late:
        (late / "finding.json").write_text("late")
        with atomic_folder(target) as first:
            (first / "finding.json").write_text("first")
    assert (target / "finding.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["view"]


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Inode and content of every file that is in its place."""
    placed = (path for path in folder.rglob("*") if path.is_file() and path.parent.suffix != ".part")
    return {path: (path.stat().st_ino, path.read_bytes()) for path in placed}


def test_worker_that_was_stopped_overwrites_nothing_when_it_wakes(tmp_path: Path) -> None:
    config = kill_config(tmp_path, "random")
    data = made(config)
    send(config, View.L_CC)
    with closing(database_of(data)) as connection:
        studies.assemble_complete(connection, Assemble(quiet_s=0), 1e9)
    stopped = start_process(tmp_path, code=STOPPED)
    try:
        assert os.waitid(os.P_PID, stopped.pid, os.WSTOPPED).si_status == signal.SIGSTOP
        assert rows(data, "SELECT state, lease FROM job") == [("running", 1)]
        worked(config)
        assert rows(data, "SELECT state, lease FROM job") == [("done", 2)]
        before, delivery = files(data.root / "results"), rows(data, "SELECT * FROM parcel_object ORDER BY sop_uid")

        stopped.send_signal(signal.SIGCONT)
        assert stopped.stderr
        assert any("another worker has leased it" in line for line in stopped.stderr), "it goes on"
    finally:
        stopped.kill()
        stopped.communicate()
    assert files(data.root / "results") == before
    assert not list(data.root.rglob("*.part"))
    assert rows(data, "SELECT * FROM parcel_object ORDER BY sop_uid") == delivery
    assert rows(data, "SELECT count(*) FROM event WHERE what = 'done'") == [(1,)]
    (report,) = data.root.glob("results/jobs/*/cad_sr.dcm")
    assert dcmread(report).SOPInstanceUID in {row[1] for row in delivery}

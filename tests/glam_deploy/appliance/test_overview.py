"""What pages and metrics ask of a large state is answered from indices, in steps that hardly grow with it."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glam_deploy.appliance.state import notifications, overview, senders, study_detail
from glam_deploy.appliance.state.database import open_database
from glam_deploy.dicom.uids import digest

VIEWS = ("L-CC", "R-CC", "L-MLO", "R-MLO")
STUDIES = 5_000
"""Of four instances each."""
LATE = 20
"""The last so many studies are not delivered yet."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 studies, one job, two deliveries and a notification each; every thousandth job is dead."""
    path = tmp_path_factory.mktemp("large") / "state.db"
    connection = open_database(path)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    numbers = range(1, STUDIES + 1)
    many = connection.executemany
    many("INSERT INTO study VALUES (?, ?, 'assembled', 0, 0, ?, ?, NULL, NULL, 1)",
         ((f"1.{n}", name(n), float(n), float(n)) for n in numbers))  # fmt: skip
    many("INSERT INTO instance (sop_uid, study_uid, series_uid, sop_class, transfer_syntax, sha256, bytes, path,"
         " sender, received_at, state, view, is_mammogram)"
         " VALUES (?, ?, '1', '1', '1', '', 10, '', '', 0, 'candidate', ?, 1)",
         ((f"2.{n}.{view}", f"1.{n}", view) for n in numbers for view in VIEWS))  # fmt: skip
    many("INSERT INTO job (id, study_uid, key, state, created_at, started_at, finished_at)"
         " VALUES (?, ?, ?, ?, ?, ?, ?)",
         ((n, f"1.{n}", str(n), "done" if n % 1000 else "dead", n, n + 1, n + 3) for n in numbers))  # fmt: skip
    many("INSERT INTO job_view (job_id, sop_uid, outcome, folder) VALUES (?, ?, 'done', ?)",
         ((n, f"2.{n}.{view}", f"{n}/{view}") for n in numbers for view in VIEWS))  # fmt: skip
    many("INSERT INTO parcel (job_id, target, state, created_at, delivered_at) VALUES (?, ?, ?, ?, ?)",
         ((n, target, "pending" if n > STUDIES - LATE else "delivered", n, n + 5)
          for n in numbers for target in ("pacs", "archive")))  # fmt: skip
    many("INSERT INTO notify_event (id, job_id, event, at, queued) VALUES (?, ?, 'delivered', ?, 1)",
         ((n, n, n) for n in numbers))  # fmt: skip
    many("INSERT INTO notification (event_id, target, state, created_at) VALUES (?, 'ris', ?, ?)",
         ((n, "pending" if n > STUDIES - 2 else "delivered", n) for n in numbers))  # fmt: skip
    connection.execute("COMMIT")
    connection.close()
    return path


def name(number: int) -> str:
    return digest(str(number))[:16]


@pytest.fixture
def connection(database: Path) -> Iterator[sqlite3.Connection]:
    with overview.open_read_only(database) as connection:
        yield connection


SMALL = {"q", "quarantine", "component", "sender", "refusal", "sqlite_sequence", "CONSTANT ROW"}
"""What may be scanned: q is the quarantine."""
QUESTIONS: dict[str, Callable[[sqlite3.Connection], Any]] = {
    "backlog": overview.backlog,
    "received": overview.received,
    "spool_bytes": overview.spool_bytes,
    "failures_by_code": overview.failures_by_code,
    "targets": overview.targets,
    "senders": senders.senders,
    "refusals": senders.refusals_by_code,
    "latest_finished": overview.latest_job_timings,
    "latest_delivered": overview.latest_delivery_timings,
    "latest views": lambda connection: overview.latest_view_folders(connection, 100),
    "studies": study_detail.studies,
    "done": lambda connection: study_detail.studies(connection, "done", 50),
    "sending": lambda connection: study_detail.studies(connection, "sending"),
    "failed": lambda connection: study_detail.studies(connection, "failed"),
    "by uid": lambda connection: study_detail.find_studies(connection, "1.777"),
    "by pseudonym": lambda connection: study_detail.find_studies(connection, name(777)[:6]),
    "story": lambda connection: study_detail.study_detail(connection, name(777)),
    "view": lambda connection: study_detail.view_files(connection, 4000),
    "failures": study_detail.failures,
    "next notification": lambda connection: notifications.next_notification(connection, "ris", 0.0),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_reads_a_whole_table(connection: sqlite3.Connection, question: str) -> None:
    """Of the large tables nothing is scanned but what is an index and nothing else."""
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    QUESTIONS[question](connection)
    connection.set_trace_callback(None)
    assert asked
    for statement in asked:
        plan = [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
        scans = {step.partition(" ")[2] for step in plan if step.startswith("SCAN") and "USING" not in step}
        in_order = {"study"} if "ORDER BY rowid DESC LIMIT" in statement else set()
        assert scans <= SMALL | in_order, (statement, plan)


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_costs_few_steps(connection: sqlite3.Connection, question: str) -> None:
    """SQLite's own count of its steps: a walk through the largest index, of four entries a study, is the most."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1000
        return 0

    connection.set_progress_handler(count, 1000)
    QUESTIONS[question](connection)
    assert steps <= 40 * STUDIES


def test_the_figures(connection: sqlite3.Connection) -> None:
    backlog = {one.stage: one for one in overview.backlog(connection)}
    dead = STUDIES // 1000
    assert (backlog["done"].count, backlog["failed"].count, backlog["failed"].oldest_at) == (STUDIES - dead, dead, 1003)
    assert (backlog["sending"].count, backlog["sending"].oldest_at) == (2 * LATE + 2, STUDIES - LATE + 1)
    assert backlog["waiting"].oldest_at is None
    assert overview.received(connection) == 4 * STUDIES
    assert overview.spool_bytes(connection) == 40 * STUDIES
    pacs = overview.targets(connection)[1]
    assert (pacs.target, pacs.pending, pacs.delivered, pacs.dead) == ("pacs", LATE, STUDIES - LATE, 0)
    finished = overview.latest_job_timings(connection, 10)
    assert [one.finished_at for one in finished] == [STUDIES + 3 - n for n in range(1, 11)]
    assert {(one.waited, one.worked) for one in finished} == {(1.0, 2.0)}
    folders = overview.latest_view_folders(connection, 6)
    assert sorted(folders[:4]) == [f"{STUDIES}/{view}" for view in sorted(VIEWS)]
    assert [folder.partition("/")[0] for folder in folders[4:]] == [str(STUDIES - 1)] * 2
    assert {one.sent for one in overview.latest_delivery_timings(connection, 10)} == {5.0}


def test_lists(connection: sqlite3.Connection) -> None:
    newest = study_detail.studies(connection)
    assert [line.pseudonym for line in newest] == [name(STUDIES - n) for n in range(study_detail.PAGE + 1)]
    assert newest[0].stage == "failed"
    assert (newest[1].stage, newest[1].instances, newest[1].views) == ("sending", 4, "L-CC, L-MLO, R-CC, R-MLO")
    assert [line.pseudonym for line in study_detail.studies(connection, "sending")] == [
        name(STUDIES - n) for n in range(LATE)
    ]
    second = study_detail.studies(connection, page=1)
    assert second[0].pseudonym == newest[study_detail.PAGE].pseudonym


def test_finding(connection: sqlite3.Connection) -> None:
    assert [line.pseudonym for line in study_detail.find_studies(connection, "1.777")] == [name(777)]
    assert name(777) in [line.pseudonym for line in study_detail.find_studies(connection, name(777)[:4])]
    for text in ("1.999999", "abc", name(777)[:3], "%", "zzzz", "1.777'", ""):
        assert study_detail.find_studies(connection, text) == []


def test_reading_cannot_write(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM study")

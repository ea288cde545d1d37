"""Urgent exams go first and fetched ones last: in the queue of jobs, in deliveries, and while the worker is busy."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mammograms import write_mg
from pydicom.dataset import Dataset
from support import jobs as support_jobs
from support.jobs import config_of, database_of, made
from support.receive import box
from support.receive import config_of as receiving

from glam_deploy.appliance.config import Assemble, PriorityRules
from glam_deploy.appliance.ingest import Status
from glam_deploy.appliance.state import deliveries, jobs, studies, study_detail
from glam_deploy.appliance.state.deliveries import ResultObject
from glam_deploy.appliance.state.priority import (
    Priority,
    fetched_waiting,
    is_outranked,
    live_exams_wait,
    priority_of,
    raise_priority,
)

NOW = 100.0


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(database_of(made(config_of(tmp_path)))) as connection:
        yield connection


def queue(connection: sqlite3.Connection, **priorities: Priority) -> None:
    """Jobs on studies, in this order of arrival."""
    for study, priority in priorities.items():
        support_jobs.arrive(connection, f"{study}.1", study=study)
        connection.execute("UPDATE study SET priority = ? WHERE study_uid = ?", (priority, study))
    studies.assemble_complete(connection, Assemble(quiet_s=0), NOW)


def claimed(connection: sqlite3.Connection) -> str | None:
    job = jobs.claim(connection, worker="w", now=NOW, lease_s=30, attempts=3)
    return job and job.study_uid


def test_jobs_are_claimed_by_priority_and_then_by_age(connection: sqlite3.Connection) -> None:
    fetched, live, stat = Priority.FETCHED, Priority.LIVE, Priority.STAT
    queue(connection, old=fetched, a=live, b=live, urgent=stat, other=fetched, late=stat)
    assert [claimed(connection) for _ in range(7)] == ["urgent", "late", "a", "b", "old", "other", None]


def test_deliveries_go_by_priority_and_then_by_age(connection: sqlite3.Connection) -> None:
    queue(connection, old=Priority.FETCHED, live=Priority.LIVE, urgent=Priority.STAT)
    while job := jobs.claim(connection, worker="w", now=NOW, lease_s=30, attempts=3):
        made_of = ResultObject(kind="sr", sop_uid=f"{job.study_uid}.sr", sop_class="1.2", path="p")
        assert jobs.finish(connection, job, {"pacs": [made_of]})
    sent = []
    while delivery := deliveries.next_delivery(connection, "pacs", NOW):
        sent.append(delivery.study_uid)
        deliveries.discard(connection, delivery.id)
    assert sent == ["urgent", "live", "old"]


def test_live_exams_outrank_a_fetched_one_and_hold_up_the_fetcher(connection: sqlite3.Connection) -> None:
    queue(connection, old=Priority.FETCHED)
    assert claimed(connection) == "old"
    assert not is_outranked(connection, "old", NOW)
    assert not live_exams_wait(connection)
    queue(connection, other=Priority.FETCHED)
    assert not is_outranked(connection, "old", NOW)
    queue(connection, live=Priority.LIVE)
    assert is_outranked(connection, "old", NOW)
    assert not is_outranked(connection, "live", NOW)
    assert live_exams_wait(connection)


def test_a_priority_is_raised_and_never_lowered(connection: sqlite3.Connection) -> None:
    queue(connection, a=Priority.LIVE, b=Priority.FETCHED)
    for given, has in (
        (Priority.FETCHED, Priority.LIVE),
        (Priority.STAT, Priority.STAT),
        (Priority.LIVE, Priority.STAT),
    ):
        raise_priority(connection, "a", given)
        assert priority_of(connection, "a") is has
    assert priority_of(connection, "b") is Priority.FETCHED


def test_fetched_studies_wait_until_their_images_are_processed(connection: sqlite3.Connection) -> None:
    queue(connection, live=Priority.LIVE, a=Priority.FETCHED, b=Priority.FETCHED)
    support_jobs.arrive(connection, "c.1", study="c")
    connection.execute("UPDATE study SET priority = ? WHERE study_uid = 'c'", (Priority.FETCHED,))
    support_jobs.arrive(connection, "d.1", study="d")
    waiting = []
    while job := jobs.claim(connection, worker="w", now=NOW, lease_s=30, attempts=3):
        waiting.append((job.study_uid, fetched_waiting(connection)))
        assert jobs.finish(connection, job, {})
    assert waiting == [("live", 3), ("a", 3), ("b", 2)]
    assert fetched_waiting(connection) == 1


def test_priority_is_shown(connection: sqlite3.Connection) -> None:
    queue(connection, old=Priority.FETCHED, live=Priority.LIVE, urgent=Priority.STAT)
    shown = {line.pseudonym: line.priority for line in study_detail.studies(connection)}
    assert shown == {"name of old": "fetched", "name of live": "", "name of urgent": "STAT"}


def stat(dataset: Dataset) -> None:
    dataset.RequestedProcedurePriority = "STAT"


def high(dataset: Dataset) -> None:
    dataset.add_new(0x0032000C, "CS", "HIGH")


def routine(dataset: Dataset) -> None:
    dataset.RequestedProcedurePriority = "ROUTINE"


@pytest.mark.parametrize(
    ("edit", "sender", "rules", "fetched", "expected"),
    [
        (stat, "MAMMO@10.0.0.1", {}, False, Priority.STAT),
        (high, "MAMMO@10.0.0.1", {}, False, Priority.STAT),
        (routine, "MAMMO@10.0.0.1", {}, False, Priority.LIVE),
        (lambda _: None, "MAMMO@10.0.0.1", {}, False, Priority.LIVE),
        (stat, "MAMMO@10.0.0.1", {"header": False}, False, Priority.LIVE),
        (routine, "ER@10.0.0.1", {"stat_senders": ["ER"]}, False, Priority.STAT),
        (routine, "@ER", {"stat_senders": ["ER"]}, False, Priority.LIVE),
        (stat, "ER@10.0.0.1", {"stat_senders": ["ER"]}, True, Priority.FETCHED),
    ],
)
def test_priority_follows_from_header_sender_and_fetching(
    edit: Callable[[Dataset], None],
    sender: str,
    rules: dict[str, object],
    fetched: bool,
    expected: Priority,
    tmp_path: Path,
) -> None:
    config = receiving(tmp_path).model_copy(update={"priority": PriorityRules(**rules)})
    file = write_mg(tmp_path / "view.dcm", edit)
    with box(config) as received:
        with received.ingest.open(sender=sender, fetched=fetched) as upload:
            upload.write(file.read_bytes())
            assert upload.finish().status == Status.SUCCESS
        assert received.rows("SELECT priority FROM study") == [(expected,)]


def test_a_study_keeps_its_highest_priority(tmp_path: Path) -> None:
    """Also where the sender sends what is here already, which is stored once."""
    file = write_mg(tmp_path / "view.dcm", stat).read_bytes()
    with box(receiving(tmp_path)) as received:
        for fetched, expected in ((True, Priority.FETCHED), (False, Priority.STAT), (True, Priority.STAT)):
            with received.ingest.open(sender="A@10.0.0.1", fetched=fetched) as upload:
                upload.write(file)
                assert upload.finish().status == Status.SUCCESS
            assert received.rows("SELECT priority, count(*) FROM study JOIN instance USING (study_uid)") == [
                (expected, 1)
            ]

"""Leases: which worker has a job, for how long, and how it ends."""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.jobs import arrive, config_of, database_of, dead_pid, made

from glam_deploy.appliance.config import Assemble
from glam_deploy.appliance.state import jobs, studies
from glam_deploy.appliance.state.database import transaction
from glam_deploy.appliance.state.deliveries import ResultObject
from glam_deploy.appliance.state.jobs import Job, JobViewOutcome
from glam_deploy.appliance.work.heartbeat import is_dead, worker_name
from glam_deploy.errors import UsageError

AT_ONCE = Assemble(quiet_s=0)
LEASE_S = 30.0


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    found = database_of(made(config_of(tmp_path)))
    yield found
    found.close()


def assembled(connection: sqlite3.Connection, *sop_uids: str, study: str = "1.2.3") -> None:
    """The study has also got these, and is complete."""
    for uid in sop_uids:
        arrive(connection, uid, study=study)
    studies.assemble_complete(connection, AT_ONCE, 0.0)


def claimed(connection: sqlite3.Connection, *, worker: str = "me", now: float = 0.0, attempts: int = 3) -> Job:
    job = jobs.claim(connection, worker=worker, now=now, lease_s=LEASE_S, attempts=attempts)
    assert job
    return job


def none_to_claim(connection: sqlite3.Connection, *, now: float, attempts: int = 3) -> bool:
    return jobs.claim(connection, worker="other", now=now, lease_s=LEASE_S, attempts=attempts) is None


def state(connection: sqlite3.Connection, job: int = 1) -> tuple[str, int]:
    row = connection.execute("SELECT state, attempts FROM job WHERE id = ?", (job,)).fetchone()
    return row["state"], row["attempts"]


def test_jobs_come_in_order_of_assembly_and_each_goes_to_one_worker(connection: sqlite3.Connection) -> None:
    assembled(connection, "1.1", study="1.2.1")
    assembled(connection, "1.2", study="1.2.2")
    assert [claimed(connection, worker=name).study_uid for name in ("a", "b")] == ["1.2.1", "1.2.2"]
    assert none_to_claim(connection, now=0.0)


def test_lease_that_is_renewed_is_kept_and_one_that_is_not_is_lost(connection: sqlite3.Connection) -> None:
    assembled(connection, "1.1")
    job = claimed(connection)
    assert jobs.renew(connection, job, until=50.0)
    assert none_to_claim(connection, now=49.0)
    assert none_to_claim(connection, now=51.0), "a study that has cost a worker lets others go first"
    second = claimed(connection, worker="other", now=53.0)
    assert (second.id, state(connection)) == (job.id, ("running", 1))
    assert not jobs.renew(connection, job, until=99.0)
    assert not jobs.record_outcomes(connection, job, [JobViewOutcome(sop_uid="1.1", outcome="done")])
    assert not jobs.finish(connection, job, {})
    assert jobs.finish(connection, second, {})


def test_job_that_costs_its_workers_is_dead_and_others_are_done_meanwhile(connection: sqlite3.Connection) -> None:
    assembled(connection, "1.1", study="1.2.1")
    assembled(connection, "1.2", study="1.2.2")
    now, done = 0.0, []
    for _ in range(10):
        job = jobs.claim(connection, worker="me", now=now, lease_s=LEASE_S, attempts=3)
        if job and job.study_uid == "1.2.2":
            done.append(jobs.finish(connection, job, {}))
        now += LEASE_S + 0.5
    assert done == [True]
    assert state(connection) == ("dead", 3)
    (reason,) = connection.execute("SELECT reason FROM job WHERE id = 1").fetchone()
    assert reason == "3 workers ended while processing it"


def test_progress_counts_attempts_anew(connection: sqlite3.Connection) -> None:
    assembled(connection, "1.1", "1.2")
    now = 0.0
    for uid in ("1.1", "1.2"):
        for _ in range(2):
            claimed(connection, now=now)
            now += LEASE_S + 1
            assert none_to_claim(connection, now=now)  # taken back here
            now += 10
        job = claimed(connection, now=now)
        assert state(connection) == ("running", 2)
        jobs.record_outcomes(connection, job, [JobViewOutcome(sop_uid=uid, outcome="done")])
        assert state(connection) == ("running", 0)
        jobs.release(connection, job)


def test_jobs_of_dead_workers_are_taken_back_at_once(connection: sqlite3.Connection) -> None:
    for n in range(3):
        assembled(connection, f"1.{n}", study=f"1.2.{n}")
    host = os.uname().nodename
    claimed(connection, worker=f"{host} {dead_pid()} 123")
    claimed(connection, worker=worker_name())
    claimed(connection, worker=f"elsewhere {dead_pid()} 123")
    jobs.reclaim(connection, now=0.0, attempts=3, is_dead=is_dead)
    assert [state(connection, n) for n in (1, 2, 3)] == [("ready", 1), ("running", 0), ("running", 0)]


def test_process_that_got_a_dead_workers_number_is_not_that_worker() -> None:
    host, pid, _ = worker_name().rsplit(" ", 2)
    assert not is_dead(worker_name())
    assert is_dead(f"{host} {pid} 1")


def test_late_mammogram_takes_the_place_of_what_is_under_way(connection: sqlite3.Connection) -> None:
    assembled(connection, "1.1")
    job = claimed(connection)
    assembled(connection, "1.2")
    assert state(connection) == ("superseded", 0)
    assert not jobs.renew(connection, job, until=99.0)
    assert not jobs.finish(connection, job, {"pacs": []})
    assert connection.execute("SELECT count(*) FROM parcel").fetchone()[0] == 0
    second = claimed(connection)
    assert (second.predecessor_key, [view.sop_uid for view in jobs.job_views(connection, second)]) == (
        None,
        ["1.1", "1.2"],
    )


def test_results_that_went_out_are_the_predecessor(connection: sqlite3.Connection) -> None:
    assembled(connection, "1.1")
    job = claimed(connection)
    made_of_it = ResultObject(kind="seg", sop_uid="2.1", sop_class="1.2", path="results/x.dcm")
    assert jobs.finish(connection, job, {"pacs": [made_of_it], "archive": [made_of_it]})
    assert connection.execute("SELECT count(*) FROM parcel").fetchone()[0] == 2
    assembled(connection, "1.2")
    assert claimed(connection).predecessor_key == job.key


def test_refused_and_skipped_mammograms_belong_to_a_job_and_other_objects_do_not(
    connection: sqlite3.Connection,
) -> None:
    arrive(connection, "1.1", state="refused")
    arrive(connection, "1.2", state="skipped")
    arrive(connection, "1.3", state="skipped", is_mammogram=False)
    studies.assemble_complete(connection, AT_ONCE, 0.0)
    found = jobs.job_views(connection, claimed(connection))
    assert [(view.sop_uid, view.state, view.state_reason) for view in found] == [
        ("1.1", "refused", "made up"),
        ("1.2", "skipped", "made up"),
    ]


def test_study_without_a_mammogram_is_ignored_with_its_reason(connection: sqlite3.Connection) -> None:
    arrive(connection, "1.1", state="skipped", is_mammogram=False)
    studies.assemble_complete(connection, AT_ONCE, 0.0)
    row = connection.execute("SELECT state, reason FROM study").fetchone()
    assert tuple(row) == ("ignored", "no mammogram among 1 instance")


def row(connection: sqlite3.Connection, job: int = 1) -> dict[str, object]:
    """What a job's row says of its lease; whether a time of day is set."""
    found = connection.execute(
        "SELECT state, attempts, reason, leased_by, lease, lease_until, next_try, started_at IS NOT NULL AS started,"
        " finished_at IS NOT NULL AS finished FROM job WHERE id = ?",
        (job,),
    ).fetchone()
    return dict(found)


def timeline(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """The events of all studies since assembly."""
    found = connection.execute("SELECT what, detail FROM event ORDER BY id").fetchall()
    assembled_at = max(n for n, event in enumerate(found) if event["what"] == "assembled")
    return [(event["what"], event["detail"]) for event in found[assembled_at + 1 :]]


FREE = {"leased_by": None, "lease_until": None}


def test_every_transition_of_a_job_as_its_row_says_it(connection: sqlite3.Connection) -> None:
    assembled(connection, "1.1")
    job = claimed(connection, now=5.0)
    held = {"state": "running", "leased_by": "me", "started": True, "finished": False, "reason": None, "next_try": 0.0}
    assert row(connection) == held | {"attempts": 0, "lease": 1, "lease_until": 35.0}
    assert (job.id, job.worker, job.lease, job.predecessor_key) == (1, "me", 1, None)

    jobs.fail(connection, job, now=10.0, attempts=3, reason="it failed")
    assert row(connection) == held | FREE | {
        "state": "ready",
        "attempts": 1,
        "reason": "it failed",
        "next_try": 11.0,
        "lease": 1,
    }
    assert none_to_claim(connection, now=10.9)

    job = claimed(connection, now=11.0)
    assert row(connection) == held | {"attempts": 1, "lease": 2, "lease_until": 41.0, "next_try": 11.0}
    jobs.release(connection, job, next_try=50.0, reason="it waits")
    assert row(connection) == held | FREE | {
        "state": "ready",
        "attempts": 1,
        "reason": "it waits",
        "next_try": 50.0,
        "lease": 2,
    }
    assert none_to_claim(connection, now=49.9)

    claimed(connection, now=50.0)
    assert none_to_claim(connection, now=80.0), "the lease holds until its last moment"
    assert none_to_claim(connection, now=80.5)
    assert row(connection) == held | FREE | {
        "state": "ready",
        "attempts": 2,
        "reason": "2 workers ended while processing it",
        "next_try": 81.5,
        "lease": 3,
    }

    jobs.fail(connection, claimed(connection, now=90.0), now=95.0, attempts=3, reason="it failed again")
    dead = held | FREE | {"finished": True, "lease": 4, "next_try": 96.0}
    assert row(connection) == dead | {"state": "dead", "attempts": 3, "reason": "it failed again"}
    jobs.retry(connection, 1)
    assert row(connection) == held | FREE | {
        "state": "ready",
        "attempts": 0,
        "reason": "retried by a person",
        "lease": 4,
    }
    assert jobs.finish(connection, claimed(connection, now=0.0), {})
    assert row(connection) == held | FREE | {"state": "done", "finished": True, "attempts": 0, "lease": 5}
    assert timeline(connection) == [
        ("started", ""),
        ("interrupted", "it failed"),
        ("started", ""),
        ("started", ""),
        ("interrupted", "2 workers ended while processing it"),
        ("started", ""),
        ("dead", "it failed again"),
        ("retried", "retried by a person"),
        ("started", ""),
        ("done", ""),
    ]
    told = connection.execute("SELECT job_id, event, reason FROM notify_event ORDER BY id").fetchall()
    assert [tuple(each) for each in told] == [(1, "failed", "it failed again")]


def test_a_job_that_is_given_back_without_a_time_is_due_at_once(connection: sqlite3.Connection) -> None:
    assembled(connection, "1.1")
    jobs.release(connection, claimed(connection, now=7.0))
    assert row(connection)["next_try"] == 0 and row(connection)["reason"] is None


def test_a_worker_that_lost_its_lease_changes_nothing(connection: sqlite3.Connection) -> None:
    """Nor does another worker with the number of the lease, or the same one with an old number."""
    assembled(connection, "1.1")
    first = claimed(connection)
    jobs.release(connection, first)
    second = claimed(connection)
    before = row(connection)
    for other in (first, replace(second, worker="other"), replace(second, lease=3), replace(second, id=2)):
        assert not jobs.renew(connection, other, until=99.0)
        jobs.release(connection, other, next_try=99.0)
        jobs.fail(connection, other, now=0.0, attempts=1, reason="made up")
        assert not jobs.record_outcomes(connection, other, [JobViewOutcome(sop_uid="1.1", outcome="done")])
        assert not jobs.finish(connection, other, {}, place=lambda: pytest.fail("moved files"))
    assert row(connection) == before
    assert jobs.job_views(connection, second)[0].outcome is None


def test_outcomes_are_those_of_their_mammograms(connection: sqlite3.Connection) -> None:
    assembled(connection, "1.1", "1.2", "1.3")
    job = claimed(connection)
    made_of_it = [
        JobViewOutcome(sop_uid="1.3", outcome="failed", reason="made up"),
        JobViewOutcome(sop_uid="1.1", outcome="done", folder="x", seconds=2.5),
    ]
    assert jobs.record_outcomes(connection, job, made_of_it)
    assert [(view.sop_uid, view.outcome, view.reason, view.folder) for view in jobs.job_views(connection, job)] == [
        ("1.1", "done", None, "x"),
        ("1.2", None, None, None),
        ("1.3", "failed", "made up", None),
    ]
    seconds = connection.execute("SELECT seconds FROM job_view ORDER BY sop_uid").fetchall()
    assert [each["seconds"] for each in seconds] == [2.5, None, None]
    assert [view.sop_uid for view in jobs.unfinished_views(connection, "1.2.3", "me")] == ["1.2"]
    assert jobs.unfinished_views(connection, "1.2.3", "other") == []
    assert jobs.unfinished_views(connection, "1.2.4", "me") == []
    jobs.release(connection, job)
    assert [view.sop_uid for view in jobs.unfinished_views(connection, "1.2.3", "other")] == ["1.2"]


def test_files_are_moved_within_the_transaction_of_the_end(connection: sqlite3.Connection) -> None:
    assembled(connection, "1.1")
    job = claimed(connection)

    def place() -> None:
        assert connection.in_transaction
        raise OSError("made up")

    with pytest.raises(OSError, match="made up"):
        jobs.finish(connection, job, {}, place=place)
    assert row(connection)["state"] == "running"


def test_one_study_can_be_asked_for(connection: sqlite3.Connection) -> None:
    for n in range(3):
        assembled(connection, f"1.{n}", study=f"1.2.{n}")
    job = jobs.claim(connection, worker="me", now=0.0, lease_s=LEASE_S, attempts=3, study_uid="1.2.1")
    assert job is not None and job.study_uid == "1.2.1"
    assert jobs.claim(connection, worker="me", now=0.0, lease_s=LEASE_S, attempts=3, study_uid="1.2.1") is None
    assert claimed(connection).study_uid == "1.2.0"


def test_a_job_on_the_same_mammograms_is_not_made_again(connection: sqlite3.Connection) -> None:
    assembled(connection, "1.1")
    with transaction(connection):
        assert jobs.create_job(connection, "1.2.3") is None
    first = claimed(connection)
    assembled(connection, "1.2")
    assert (row(connection)["state"], row(connection)["finished"]) == ("superseded", True)
    assert row(connection)["reason"] == "another mammogram arrived"
    second = claimed(connection)
    assert second.id == 2 and second.key != first.key and jobs.finish(connection, second, {})
    connection.execute("UPDATE instance SET is_mammogram = 0 WHERE sop_uid = '1.2'")
    with transaction(connection):
        assert jobs.create_job(connection, "1.2.3") == 3
    third = claimed(connection)
    assert third.key not in (first.key, second.key), "results of an earlier state that returns are new objects"
    assert third.predecessor_key == second.key
    assert [view.sop_uid for view in jobs.job_views(connection, third)] == ["1.1"]


def test_jobs_on_mammograms_that_return_have_keys_of_their_own(connection: sqlite3.Connection) -> None:
    """Of two studies, each of whose second mammogram comes and goes; the first job has its sources as its key."""
    for study in ("1.2.1", "1.2.2"):
        assembled(connection, f"{study}.1", f"{study}.2", study=study)
        for there in (0, 1, 0, 1, 0):
            connection.execute("UPDATE instance SET is_mammogram = ? WHERE sop_uid = ?", (there, f"{study}.2"))
            with transaction(connection):
                assert jobs.create_job(connection, study)
    found = [tuple(each) for each in connection.execute("SELECT key, sources FROM job ORDER BY id")]
    assert len({key for key, _ in found}) == 12
    assert [key == sources for key, sources in found] == [True, True, False, False, False, False] * 2


# a person's decisions


def dead_job(connection: sqlite3.Connection) -> None:
    assembled(connection, "1.1", "1.2")
    job = claimed(connection)
    jobs.record_outcomes(
        connection,
        job,
        [
            JobViewOutcome(sop_uid="1.1", outcome="failed", reason="made up"),
            JobViewOutcome(sop_uid="1.2", outcome="done", folder="x"),
        ],
    )
    jobs.fail(connection, job, now=0.0, attempts=1, reason="the engine failed on it")


def test_dead_job_is_retried_with_its_failed_views(connection: sqlite3.Connection) -> None:
    dead_job(connection)
    assert none_to_claim(connection, now=1e9)
    jobs.retry(connection, 1)
    outcomes = [view.outcome for view in jobs.job_views(connection, claimed(connection))]
    assert outcomes == [None, "done"]
    assert state(connection) == ("running", 0)


def test_discarded_job_stays_so(connection: sqlite3.Connection) -> None:
    dead_job(connection)
    jobs.discard(connection, 1)
    assert state(connection)[0] == "discarded"
    assert row(connection)["finished"] and timeline(connection)[-1] == ("discarded", "discarded by a person")
    assert [view.outcome for view in jobs._views(connection, 1)] == ["failed", "done"]
    assert none_to_claim(connection, now=1e9)


@pytest.mark.parametrize("decide", [jobs.retry, jobs.discard])
def test_only_what_is_dead_is_decided_about(connection: sqlite3.Connection, decide: object) -> None:
    assembled(connection, "1.1")
    with pytest.raises(UsageError, match="job 1 is not dead"):
        decide(connection, 1)  # type: ignore[operator]

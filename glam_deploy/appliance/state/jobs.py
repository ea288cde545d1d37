"""Jobs: the processing of a study as it was when assembled. All state transitions of `job` and `job_view`.

ready -> running                   a worker has leased it and renews the lease
running -> ready                   released; or the lease ran out, which counts as an attempt
running -> done                    results are on the disk and deliveries are queued, in one transaction
running, ready -> dead             too many attempts without a view finished in between
ready, running, dead -> superseded the study's mammograms have changed
dead -> ready, discarded           by a person (`retry`, `discard`)
"""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from glam_deploy.appliance.state import deliveries, notify_events
from glam_deploy.appliance.state.database import add_event, transaction
from glam_deploy.appliance.state.deliveries import ResultObject
from glam_deploy.appliance.state.rejections import NOT_REJECTED
from glam_deploy.dicom.uids import digest
from glam_deploy.errors import UsageError

RETRY_S = 1.0
"""Delay after a failed attempt, so that other jobs run before a study that ends its worker."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job that a worker has leased."""

    id: int
    study_uid: str
    pseudonym: str
    """Name of the study in logs."""
    key: str
    predecessor_key: str | None
    """Key of the job whose reports this job's reports replace."""
    worker: str
    """Name of the worker that holds the lease."""
    lease: int
    """Number of the lease, counted up by each `claim`: a fencing token. A worker that was stopped and wakes after its
    lease has run out holds an old number, which no transition accepts.
    """


@dataclass(frozen=True, kw_only=True)
class JobView:
    """One mammogram of a job."""

    sop_uid: str
    sop_class: str
    series_uid: str
    sha256: str
    path: str
    """Path of its file, relative to the data folder."""
    state: str
    """"candidate", "skipped" or "refused", as received."""
    state_reason: str | None
    view: str | None
    outcome: str | None
    """"done", "skipped" or "failed"; None if it has not been processed yet."""
    reason: str | None
    folder: str | None
    """Folder of its results, relative to the data folder."""
    sender: str = ""
    """As in the audit log: AE title@address, without an AE title for STOW-RS."""


@dataclass(frozen=True, kw_only=True)
class JobViewOutcome:
    """The outcome of processing one mammogram."""

    sop_uid: str
    outcome: str
    reason: str | None = None
    """Text without identifiers."""
    folder: str | None = None
    seconds: float | None = None


LATEST = "(SELECT id FROM job WHERE study_uid = {}.study_uid ORDER BY state = 'superseded', id DESC LIMIT 1)"
"""SQL: the job with the current outcomes of a study, a superseded one only if there is no other; {} is the table of the
study.
"""


def create_job(connection: sqlite3.Connection, study_uid: str) -> int | None:
    """Create a job on all mammograms of a study that are not rejected; its id. It supersedes the unfinished jobs.

    None if the study's latest job is on exactly these mammograms. In the caller's transaction.
    """
    images = connection.execute(
        f"SELECT sop_uid, sha256 FROM instance WHERE study_uid = ? AND is_mammogram AND {NOT_REJECTED}"
        " ORDER BY sop_uid",
        (study_uid,),
    ).fetchall()
    sources = digest(study_uid, *(text for image in images for text in image))
    latest = connection.execute(
        f"SELECT sources FROM job WHERE study_uid = ? AND state != 'superseded' AND {_IN_FORCE}"
        " ORDER BY id DESC LIMIT 1",
        (study_uid,),
    ).fetchone()
    if latest and latest["sources"] == sources:
        return None
    supersede(connection, study_uid, "another mammogram arrived")
    job_id = connection.execute(
        "INSERT INTO job (study_uid, key, sources, predecessor, state, created_at)"
        f" VALUES (?, ?, ?, ({_PREDECESSOR}), 'ready', ?)",
        (study_uid, _new_key(connection, study_uid, sources), sources, study_uid, time.time()),
    ).lastrowid
    connection.executemany(
        "INSERT INTO job_view (job_id, sop_uid) VALUES (?, ?)", [(job_id, image["sop_uid"]) for image in images]
    )
    return job_id


_IN_FORCE = (
    "(NOT EXISTS (SELECT 1 FROM parcel WHERE job_id = job.id)"
    " OR EXISTS (SELECT 1 FROM parcel WHERE job_id = job.id AND parcel.state != 'discarded'))"
)
"""SQL condition: the results of a job were not withdrawn from all targets."""
_PREDECESSOR = f"SELECT max(id) FROM job WHERE study_uid = ? AND state = 'done' AND {_IN_FORCE}"


def _new_key(connection: sqlite3.Connection, study_uid: str, sources: str) -> str:
    """A key that no job has: the sources, or, if an earlier job had the same ones, a digest of them and a number.

    Results of an earlier state of a study that is restored are new objects, because they replace those in between.
    """
    (earlier,) = connection.execute(
        "SELECT count(*) FROM job WHERE study_uid = ? AND sources = ?", (study_uid, sources)
    ).fetchone()
    return digest(sources, str(earlier)) if earlier else sources


def supersede(connection: sqlite3.Connection, study_uid: str, reason: str) -> None:
    """End the study's unfinished jobs, because their mammograms have changed. In the caller's transaction."""
    connection.execute(
        "UPDATE job SET state = 'superseded', reason = ?, finished_at = ?, leased_by = NULL,"
        " lease_until = NULL WHERE study_uid = ? AND state IN ('ready', 'running', 'dead')",
        (reason, time.time(), study_uid),
    )


def claim(
    connection: sqlite3.Connection,
    *,
    worker: str,
    now: float,
    lease_s: float,
    attempts: int,
    study_uid: str | None = None,
) -> Job | None:
    """Lease the oldest job of the highest priority that is due, of study `study_uid` if given; None if there is none.

    `now`: monotonic time. Jobs whose lease has run out are reclaimed first; after `attempts` of them a job is dead.
    """
    if not _has_claimable(connection, now):
        return None
    with transaction(connection):
        for row in connection.execute(
            "SELECT * FROM job WHERE state = 'running' AND lease_until < ?", (now,)
        ).fetchall():
            _reclaim(connection, row, now, attempts)
        found = connection.execute(
            "SELECT job.id, job.study_uid, pseudonym, job.key, before.key AS predecessor_key, ? AS worker,"
            " job.lease + 1 AS lease FROM job"
            " JOIN study USING (study_uid) LEFT JOIN job AS before ON before.id = job.predecessor"
            " WHERE job.state = 'ready' AND job.next_try <= ? AND job.study_uid = coalesce(?, job.study_uid)"
            " ORDER BY study.priority, job.id LIMIT 1",
            (worker, now, study_uid),
        ).fetchone()
        if found is None:
            return None
        connection.execute(
            "UPDATE job SET state = 'running', leased_by = ?, lease = lease + 1, lease_until = ?, reason = NULL,"
            " started_at = coalesce(started_at, ?) WHERE id = ?",
            (worker, now + lease_s, time.time(), found["id"]),
        )
        add_event(connection, found["study_uid"], "started")
    return Job(**dict(found))


def _has_claimable(connection: sqlite3.Connection, now: float) -> bool:
    """Whether there is anything to claim or reclaim; reads only, so that the write lock stays free."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM job WHERE state = 'ready' AND next_try <= ?)"
        " OR EXISTS (SELECT 1 FROM job WHERE state = 'running' AND lease_until < ?)"
    )
    return bool(connection.execute(query, (now, now)).fetchone()[0])


def reclaim(connection: sqlite3.Connection, *, now: float, attempts: int, is_dead: Callable[[str], bool]) -> None:
    """Reclaim the jobs of workers that are known to be dead, without waiting for their leases to run out.

    `is_dead`: tells from the name that a worker gave to `claim` whether it has ended.
    """
    with transaction(connection):
        for row in connection.execute("SELECT * FROM job WHERE state = 'running'").fetchall():
            if is_dead(row["leased_by"]):
                _reclaim(connection, row, now, attempts)


def _reclaim(connection: sqlite3.Connection, row: sqlite3.Row, now: float, attempts: int) -> None:
    lost = row["attempts"] + 1
    _count_attempt(connection, row, now, attempts, f"{lost} worker{'s' * (lost > 1)} ended while processing it")


def _count_attempt(connection: sqlite3.Connection, row: sqlite3.Row, now: float, attempts: int, reason: str) -> None:
    lost = row["attempts"] + 1
    dead = lost >= attempts
    connection.execute(
        "UPDATE job SET state = ?, attempts = ?, reason = ?, next_try = ?, finished_at = ?, leased_by = NULL,"
        " lease_until = NULL WHERE id = ?",
        (
            "dead" if dead else "ready",
            lost,
            reason,
            now + RETRY_S,
            time.time() if dead else None,
            row["id"],
        ),
    )
    add_event(connection, row["study_uid"], "dead" if dead else "interrupted", reason)
    if dead:
        notify_events.record(connection, row["id"], "failed", reason)


def renew(connection: sqlite3.Connection, job: Job, until: float) -> bool:
    """Extend the lease until monotonic time `until`; False if this worker no longer holds it."""
    changed = connection.execute(f"UPDATE job SET lease_until = ? WHERE {_HELD}", (until, *_held_by(job)))
    return changed.rowcount == 1


def release(connection: sqlite3.Connection, job: Job, *, next_try: float = 0.0, reason: str | None = None) -> None:
    """Give a job back without counting an attempt, to be tried at monotonic time `next_try`.

    Does nothing if this worker no longer holds the lease.
    """
    connection.execute(
        f"UPDATE job SET state = 'ready', next_try = ?, reason = ?, leased_by = NULL, lease_until = NULL WHERE {_HELD}",
        (next_try, reason, *_held_by(job)),
    )


def fail(connection: sqlite3.Connection, job: Job, *, now: float, attempts: int, reason: str) -> None:
    """Count a failed attempt: ready again later, or dead after `attempts` of them. `reason` holds no identifier."""
    with transaction(connection):
        row = _leased_row(connection, job)
        if row:
            _count_attempt(connection, row, now, attempts, reason)


def job_views(connection: sqlite3.Connection, job: Job) -> list[JobView]:
    """Every mammogram of a job, in order of arrival."""
    return _views(connection, job.id)


def _views(connection: sqlite3.Connection, job_id: int | None) -> list[JobView]:
    rows = connection.execute(
        "SELECT i.sop_uid, i.sop_class, i.series_uid, i.sha256, i.path, i.state, i.reason AS state_reason, i.view,"
        " v.outcome, v.reason, v.folder, i.sender FROM job_view AS v JOIN instance AS i USING (sop_uid)"
        " WHERE v.job_id = ? ORDER BY i.arrival",
        (job_id,),
    )
    return [JobView(**dict(row)) for row in rows]


def unfinished_views(connection: sqlite3.Connection, study_uid: str, worker: str) -> list[JobView]:
    """Mammograms without an outcome in the study's newest job that is ready or leased by `worker`."""
    (newest,) = connection.execute(
        "SELECT max(id) FROM job WHERE study_uid = ? AND (state = 'ready' OR state = 'running' AND leased_by = ?)",
        (study_uid, worker),
    ).fetchone()
    return [view for view in _views(connection, newest) if view.outcome is None]


def record_outcomes(connection: sqlite3.Connection, job: Job, outcomes: Sequence[JobViewOutcome]) -> bool:
    """Store the outcomes of mammograms and reset the count of attempts. False if this worker lost the lease."""
    with transaction(connection):
        if not _leased_row(connection, job):
            return False
        connection.executemany(
            "UPDATE job_view SET outcome = ?, reason = ?, folder = ?, seconds = ? WHERE job_id = ? AND sop_uid = ?",
            [(each.outcome, each.reason, each.folder, each.seconds, job.id, each.sop_uid) for each in outcomes],
        )
        connection.execute("UPDATE job SET attempts = 0 WHERE id = ?", (job.id,))
    return True


def finish(
    connection: sqlite3.Connection,
    job: Job,
    results: Mapping[str, Sequence[ResultObject]],
    *,
    place: Callable[[], None] = lambda: None,
) -> bool:
    """End a job as done and queue a delivery of `results` (target -> its objects) for each target, in one transaction.

    `place` moves the files of the reports to their final names; it is called inside the transaction, and only if the
    lease is held, so that no other worker can have finished the job. Raises what `place` raises; nothing has changed
    then in the database. False if the lease was lost.
    """
    with transaction(connection):
        if not _leased_row(connection, job):
            return False
        place()
        connection.execute(
            "UPDATE job SET state = 'done', reason = NULL, finished_at = ?, leased_by = NULL, lease_until = NULL"
            " WHERE id = ?",
            (time.time(), job.id),
        )
        deliveries.enqueue(connection, job.id, results)
        add_event(connection, job.study_uid, "done")
        notify_events.record_finished(connection, job.id)
    return True


def _leased_row(connection: sqlite3.Connection, job: Job) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute(f"SELECT * FROM job WHERE {_HELD}", _held_by(job)).fetchone()
    return row


_HELD = "id = ? AND state = 'running' AND leased_by = ? AND lease = ?"
"""SQL condition: a worker holds the lease of a job; `_held_by` has its values."""


def _held_by(job: Job) -> tuple[int, str, int]:
    return job.id, job.worker, job.lease


def retry(connection: sqlite3.Connection, job_id: int) -> None:
    """Make a dead job ready again, with its attempts counted from 0. Raises UsageError if it is not dead."""
    _decide(connection, job_id, "ready", "retried by a person")


def discard(connection: sqlite3.Connection, job_id: int) -> None:
    """Give up a dead job: its study gets no result. Raises UsageError if it is not dead."""
    _decide(connection, job_id, "discarded", "discarded by a person")


def _decide(connection: sqlite3.Connection, job_id: int, state: str, reason: str) -> None:
    with transaction(connection):
        row = connection.execute("SELECT study_uid FROM job WHERE id = ? AND state = 'dead'", (job_id,)).fetchone()
        if row is None:
            raise UsageError(f"job {job_id} is not dead: only a dead job can be retried or discarded")
        connection.execute(
            "UPDATE job SET state = ?, attempts = 0, next_try = 0, reason = ?,"
            " finished_at = CASE ? WHEN 'ready' THEN NULL ELSE finished_at END WHERE id = ?",
            (state, reason, state, job_id),
        )
        if state == "ready":  # the cause of a failed view may have been corrected
            connection.execute(
                "UPDATE job_view SET outcome = NULL, reason = NULL WHERE job_id = ? AND outcome = 'failed'", (job_id,)
            )
        add_event(connection, row["study_uid"], reason.partition(" ")[0], reason)

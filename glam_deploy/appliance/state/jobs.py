"""Jobs: the work on a study as it was when assembled. Every transition of `job` and `job_view`.

ready -> running                   a worker has a lease on it, which it renews while it lives
running -> ready                   given back; or its worker died, which counts as an attempt
running -> done                    results lie on the disk and parcels wait, in one transaction
running, ready -> dead             too many attempts without a view finished in between; `retry` by a person
ready, running, dead -> superseded the study got another mammogram, and a job with it
dead -> ready, discarded           by a person
"""

import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from glam_deploy.appliance.identity import digest
from glam_deploy.appliance.state import parcels
from glam_deploy.appliance.state.database import transaction
from glam_deploy.appliance.state.events import note
from glam_deploy.appliance.state.parcels import ResultObject
from glam_deploy.errors import UsageError

RETRY_S = 1.0
"""From a failed attempt to the next, so that a study that kills its worker lets others go first."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job that a worker has a lease on."""

    id: int
    study_uid: str
    pseudonym: str
    """What logs call the study."""
    key: str
    predecessor_key: str | None
    """Key of the job whose results these replace."""
    worker: str
    """Who has the lease."""


@dataclass(frozen=True, kw_only=True)
class JobView:
    """One mammogram of a job."""

    sop_uid: str
    sop_class: str
    series_uid: str
    sha256: str
    path: str
    """Of its file, relative to the data folder."""
    state: str
    """"candidate", "skipped" or "refused", as received."""
    state_reason: str | None
    view: str | None
    outcome: str | None
    """"done", "skipped", "failed"; None while it has not been worked on."""
    reason: str | None
    folder: str | None
    """Of its results, relative to the data folder."""


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What became of one mammogram."""

    sop_uid: str
    outcome: str
    reason: str | None = None
    """In words that hold no identifier."""
    folder: str | None = None
    seconds: float | None = None


def open_job(connection: sqlite3.Connection, study_uid: str) -> int | None:
    """A job on all mammograms of a study, in the place of those not done; inside the caller's transaction.

    None where there was a job on just these before.
    """
    sources = connection.execute(
        "SELECT sop_uid, sha256 FROM instance WHERE study_uid = ? AND is_mammogram ORDER BY sop_uid", (study_uid,)
    ).fetchall()
    key = digest(study_uid, *(text for source in sources for text in source))
    if connection.execute("SELECT 1 FROM job WHERE key = ?", (key,)).fetchone():
        return None
    connection.execute(
        "UPDATE job SET state = 'superseded', reason = 'another mammogram came', finished_at = ?, leased_by = NULL,"
        " lease_until = NULL WHERE study_uid = ? AND state IN ('ready', 'running', 'dead')",
        (time.time(), study_uid),
    )
    job_id = connection.execute(
        "INSERT INTO job (study_uid, key, predecessor, state, created_at) VALUES (?, ?,"
        " (SELECT max(id) FROM job WHERE study_uid = ? AND state = 'done'), 'ready', ?)",
        (study_uid, key, study_uid, time.time()),
    ).lastrowid
    connection.executemany(
        "INSERT INTO job_view (job_id, sop_uid) VALUES (?, ?)", [(job_id, source["sop_uid"]) for source in sources]
    )
    return job_id


def claim(
    connection: sqlite3.Connection,
    *,
    worker: str,
    now: float,
    lease_s: float,
    attempts: int,
    study_uid: str | None = None,
) -> Job | None:
    """A lease on the oldest job, of this study if one is named, that may be worked on; None where there is none.

    `now`: steady.
    Jobs whose lease has run out are taken back first; one that has cost `attempts` workers is dead.
    """
    if not _anything(connection, now):
        return None
    with transaction(connection):
        for row in connection.execute(
            "SELECT * FROM job WHERE state = 'running' AND lease_until < ?", (now,)
        ).fetchall():
            _take_back(connection, row, now, attempts)
        found = connection.execute(
            "SELECT job.id, job.study_uid, pseudonym, job.key, before.key AS predecessor_key, ? AS worker FROM job"
            " JOIN study USING (study_uid) LEFT JOIN job AS before ON before.id = job.predecessor"
            " WHERE job.state = 'ready' AND job.next_try <= ? AND job.study_uid = coalesce(?, job.study_uid)"
            " ORDER BY job.id LIMIT 1",
            (worker, now, study_uid),
        ).fetchone()
        if found is None:
            return None
        connection.execute(
            "UPDATE job SET state = 'running', leased_by = ?, lease_until = ?, reason = NULL,"
            " started_at = coalesce(started_at, ?) WHERE id = ?",
            (worker, now + lease_s, time.time(), found["id"]),
        )
        note(connection, found["study_uid"], "started")
    return Job(**dict(found))


def _anything(connection: sqlite3.Connection, now: float) -> bool:
    """Without the right to write, which others need."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM job WHERE state = 'ready' AND next_try <= ?)"
        " OR EXISTS (SELECT 1 FROM job WHERE state = 'running' AND lease_until < ?)"
    )
    return bool(connection.execute(query, (now, now)).fetchone()[0])


def take_back(connection: sqlite3.Connection, *, now: float, attempts: int, is_dead: Callable[[str], bool]) -> None:
    """At once, the jobs of workers that are known to be dead (`is_dead` of what they were called at `claim`)."""
    with transaction(connection):
        for row in connection.execute("SELECT * FROM job WHERE state = 'running'").fetchall():
            if is_dead(row["leased_by"]):
                _take_back(connection, row, now, attempts)


def _take_back(connection: sqlite3.Connection, row: sqlite3.Row, now: float, attempts: int) -> None:
    lost = row["attempts"] + 1
    _count_attempt(connection, row, now, attempts, f"cost {lost} worker{'s' * (lost > 1)}, which ended while at it")


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
    note(connection, row["study_uid"], "dead" if dead else "interrupted", reason)


def renew(connection: sqlite3.Connection, job: Job, until: float) -> bool:
    """Keep the lease until steady time `until`; False where the job is no longer this worker's."""
    changed = connection.execute(
        "UPDATE job SET lease_until = ? WHERE id = ? AND state = 'running' AND leased_by = ?",
        (until, job.id, job.worker),
    )
    return changed.rowcount == 1


def give_back(connection: sqlite3.Connection, job: Job, *, next_try: float = 0.0, reason: str | None = None) -> None:
    """For somebody else, or for later (steady time); no attempt is counted. Nothing where it is not ours any more."""
    connection.execute(
        "UPDATE job SET state = 'ready', next_try = ?, reason = ?, leased_by = NULL, lease_until = NULL"
        " WHERE id = ? AND state = 'running' AND leased_by = ?",
        (next_try, reason, job.id, job.worker),
    )


def fail(connection: sqlite3.Connection, job: Job, *, now: float, attempts: int, reason: str) -> None:
    """An attempt failed, for a `reason` without identifiers: ready again later, or dead after `attempts` of them."""
    with transaction(connection):
        row = _ours(connection, job)
        if row:
            _count_attempt(connection, row, now, attempts, reason)


def views(connection: sqlite3.Connection, job: Job) -> list[JobView]:
    """Every mammogram of a job, as they arrived."""
    return _views(connection, job.id)


def _views(connection: sqlite3.Connection, job_id: int | None) -> list[JobView]:
    rows = connection.execute(
        "SELECT i.sop_uid, i.sop_class, i.series_uid, i.sha256, i.path, i.state, i.reason AS state_reason, i.view,"
        " v.outcome, v.reason, v.folder FROM job_view AS v JOIN instance AS i USING (sop_uid)"
        " WHERE v.job_id = ? ORDER BY i.arrival",
        (job_id,),
    )
    return [JobView(**dict(row)) for row in rows]


def open_views(connection: sqlite3.Connection, study_uid: str, worker: str) -> list[JobView]:
    """Mammograms without an outcome, of the study's job that waits or that `worker` has; none without such a job."""
    (newest,) = connection.execute(
        "SELECT max(id) FROM job WHERE study_uid = ? AND (state = 'ready' OR state = 'running' AND leased_by = ?)",
        (study_uid, worker),
    ).fetchone()
    return [view for view in _views(connection, newest) if view.outcome is None]


def settle_views(connection: sqlite3.Connection, job: Job, settled: Sequence[Settled]) -> bool:
    """Write down what became of mammograms: progress, so attempts count from 0 again. False where it is not ours."""
    with transaction(connection):
        if not _ours(connection, job):
            return False
        connection.executemany(
            "UPDATE job_view SET outcome = ?, reason = ?, folder = ?, seconds = ? WHERE job_id = ? AND sop_uid = ?",
            [(each.outcome, each.reason, each.folder, each.seconds, job.id, each.sop_uid) for each in settled],
        )
        connection.execute("UPDATE job SET attempts = 0 WHERE id = ?", (job.id,))
    return True


def finish(
    connection: sqlite3.Connection, job: Job, *, objects: Sequence[ResultObject], targets: Collection[str]
) -> bool:
    """Done: a parcel with the objects for each target, and the job's end, all at once. False where it is not ours."""
    with transaction(connection):
        if not _ours(connection, job):
            return False
        connection.execute(
            "UPDATE job SET state = 'done', reason = NULL, finished_at = ?, leased_by = NULL, lease_until = NULL"
            " WHERE id = ?",
            (time.time(), job.id),
        )
        parcels.enqueue(connection, job.id, targets, objects)
        note(connection, job.study_uid, "done")
    return True


def _ours(connection: sqlite3.Connection, job: Job) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM job WHERE id = ? AND state = 'running' AND leased_by = ?", (job.id, job.worker)
    ).fetchone()
    return row


def retry(connection: sqlite3.Connection, job_id: int) -> None:
    """A dead job is worked on again, at once, attempts counted anew. Raises UsageError where it is not dead."""
    _decide(connection, job_id, "ready", "retried by a person")


def discard(connection: sqlite3.Connection, job_id: int) -> None:
    """A person gives a dead job up: its study gets no result. Raises UsageError where it is not dead."""
    _decide(connection, job_id, "discarded", "discarded by a person")


def _decide(connection: sqlite3.Connection, job_id: int, state: str, told: str) -> None:
    with transaction(connection):
        row = connection.execute("SELECT study_uid FROM job WHERE id = ? AND state = 'dead'", (job_id,)).fetchone()
        if row is None:
            raise UsageError(f"job {job_id} is not dead, so there is nothing to decide about it: look at it again")
        connection.execute(
            "UPDATE job SET state = ?, attempts = 0, next_try = 0, reason = ?,"
            " finished_at = CASE ? WHEN 'ready' THEN NULL ELSE finished_at END WHERE id = ?",
            (state, told, state, job_id),
        )
        if state == "ready":  # what made a view fail may have been put right
            connection.execute(
                "UPDATE job_view SET outcome = NULL, reason = NULL WHERE job_id = ? AND outcome = 'failed'", (job_id,)
            )
        note(connection, row["study_uid"], told.partition(" ")[0], told)

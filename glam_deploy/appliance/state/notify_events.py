"""Events of jobs of which the receivers of [[notify]] are told: recorded with the transition that they describe.

    delivered       every target holds the results, or there is no target
    failed          the job, or a delivery of its results, ended in the dead letter queue
    refused_views   the job is done, and a mammogram of it has no result: it could not be read or processed, or the
                    network was not made for it
    superseded      the results of the job are no longer valid, and the receivers may know of them

All functions run in the caller's transaction. `notifications.queue` makes the messages.
"""

import sqlite3
import time
from typing import Literal

from glam_deploy.appliance.state import without_result

Event = Literal["delivered", "failed", "refused_views", "superseded"]


def record(connection: sqlite3.Connection, job_id: int, event: Event, reason: str = "") -> None:
    """Record an event of a job; `reason`: text without identifiers."""
    connection.execute(
        "INSERT INTO notify_event (job_id, event, at, reason) VALUES (?, ?, ?, ?)", (job_id, event, time.time(), reason)
    )


def record_finished(connection: sqlite3.Connection, job_id: int) -> None:
    """Record the events of a job that has just ended as done, with its deliveries queued."""
    (predecessor,) = connection.execute("SELECT predecessor FROM job WHERE id = ?", (job_id,)).fetchone()
    if predecessor:
        _record_superseded(connection, predecessor, "replaced by a later result")
    without, number = without_result.counts(connection, job_id)
    if without:
        record(connection, job_id, "refused_views", f"{without} of {number} mammograms have no result")
    has_deliveries = connection.execute("SELECT 1 FROM parcel WHERE job_id = ?", (job_id,)).fetchone()
    is_done = connection.execute("SELECT 1 FROM job_view WHERE job_id = ? AND outcome = 'done'", (job_id,)).fetchone()
    if is_done and not has_deliveries:
        record(connection, job_id, "delivered", "no target gets the results")


def record_if_delivered(connection: sqlite3.Connection, job_id: int) -> None:
    """Record that the results of a job are delivered, if nothing of them is left to send and something was sent."""
    states = {row[0] for row in connection.execute("SELECT state FROM parcel WHERE job_id = ?", (job_id,))}
    if "delivered" in states and not states & {"pending", "dead"}:
        record(connection, job_id, "delivered")


def record_withdrawn(connection: sqlite3.Connection, study_uid: str, reason: str) -> None:
    """Record that all results of a study so far are no longer valid."""
    for row in connection.execute("SELECT id FROM job WHERE study_uid = ? AND state = 'done'", (study_uid,)).fetchall():
        _record_superseded(connection, row["id"], reason)


def _record_superseded(connection: sqlite3.Connection, job_id: int, reason: str) -> None:
    """Record it once, and only if receivers may know of the result: from an event, or from a target."""
    known = connection.execute(
        "SELECT (EXISTS (SELECT 1 FROM notify_event WHERE job_id = :job)"
        " OR EXISTS (SELECT 1 FROM parcel WHERE job_id = :job AND state = 'delivered'))"
        " AND NOT EXISTS (SELECT 1 FROM notify_event WHERE job_id = :job AND event = 'superseded')",
        {"job": job_id},
    ).fetchone()[0]
    if known:
        record(connection, job_id, "superseded", reason)

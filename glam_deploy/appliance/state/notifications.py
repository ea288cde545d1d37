"""Notifications: the sending of one event of a job to one entry of [[notify]]. All transitions of `notification`.

    pending -> delivered              the receiver has confirmed it
    pending -> dead                   attempts exhausted
    dead, pending -> pending          `retry` by a person
    dead, pending -> discarded        `discard` by a person

A message may be sent twice if this machine fails between the receiver's confirmation and its record; then its id, which
is derived from the event, is the same.
"""

import sqlite3
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from glam_deploy.appliance.state import attempts as tries
from glam_deploy.appliance.state import database
from glam_deploy.appliance.state.database import transaction
from glam_deploy.appliance.state.notify_events import Event
from glam_deploy.dicom.uids import digest

OPEN_OF_STUDY = (
    "SELECT 1 FROM job JOIN notify_event e ON e.job_id = job.id JOIN notification n ON n.event_id = e.id"
    " WHERE job.study_uid = study.study_uid AND n.state IN ('pending', 'dead')"
)
"""SQL: the notifications of a row of `study` that wait, or need a decision."""


@dataclass(frozen=True, kw_only=True)
class Notification:
    """A notification that is to be sent."""

    id: int
    event_id: int
    target: str
    event: Event
    at: float
    """Wall clock time of the event."""
    reason: str
    """Why, without identifiers; "" if the event says it all."""
    job_id: int
    job_key: str
    study_uid: str
    pseudonym: str
    """Name of the study in logs."""
    attempts: int

    @property
    def message_id(self) -> str:
        """Identifier of the message, equal at each try and for all receivers; 32 hexadecimal digits."""
        return digest("notification", self.job_key, self.event, str(self.event_id))[:32]


def queue(connection: sqlite3.Connection, entries: Mapping[str, Collection[str]]) -> int:
    """Make the notifications of new events; how many. `entries`: name of an entry -> events that it gets.

    An event without an entry that gets it is done with, so that a later entry is not told of old events.
    """
    if connection.execute("SELECT 1 FROM notify_event WHERE queued = 0 LIMIT 1").fetchone() is None:
        return 0
    with transaction(connection):
        rows = connection.execute("SELECT id, event FROM notify_event WHERE queued = 0 ORDER BY id").fetchall()
        made = [(row["id"], name, time.time()) for row in rows for name in entries if row["event"] in entries[name]]
        connection.executemany(
            "INSERT OR IGNORE INTO notification (event_id, target, state, created_at) VALUES (?, ?, 'pending', ?)", made
        )
        connection.execute("UPDATE notify_event SET queued = 1 WHERE queued = 0")
    return len(made)


_ROWS = (
    "SELECT n.id, n.event_id, n.target, e.event, e.at, e.reason, e.job_id, job.key AS job_key, job.study_uid,"
    " pseudonym, n.attempts FROM notification n JOIN notify_event e ON e.id = n.event_id"
    " JOIN job ON job.id = e.job_id JOIN study USING (study_uid)"
)
_EARLIER_OF_STUDY = (
    "SELECT 1 FROM job k CROSS JOIN notify_event f ON f.job_id = k.id CROSS JOIN notification m ON m.event_id = f.id"
    " WHERE k.study_uid = job.study_uid AND m.target = n.target AND m.state = 'pending' AND m.id < n.id"
)
"""SQL: pending notifications of the same study to the same receiver before `n`. CROSS JOIN keeps SQLite to this order,
from the one study: from the receiver it would read all that waits.
"""


def next_notification(
    connection: sqlite3.Connection, target: str, now: float, *, last: Collection[int] = ()
) -> Notification | None:
    """The oldest notification for `target` that is due at monotonic time `now`; those in `last` come after all others.

    One of a study waits for all earlier ones of it, so that a receiver learns of a correction after what it corrects.
    """
    marks = ", ".join("?" * len(last))
    for condition in (f"n.id NOT IN ({marks})", f"n.id IN ({marks})"):
        row = connection.execute(
            f"{_ROWS} WHERE n.target = ? AND n.state = 'pending' AND n.next_try <= ? AND {condition}"
            f" AND NOT EXISTS ({_EARLIER_OF_STUDY}) ORDER BY n.id LIMIT 1",
            (target, now, *last),
        ).fetchone()
        if row:
            return Notification(**row)
    return None


def take_retry_request(connection: sqlite3.Connection, target: str) -> bool:
    """Whether a person asked to retry a notification for `target`; if so, all that wait for it become due."""
    return tries.take_retry_request(connection, "notification", target)


def mark_delivered(connection: sqlite3.Connection, number: int) -> None:
    """Record that the receiver has confirmed a notification."""
    with transaction(connection):
        done = connection.execute(
            "UPDATE notification SET state = 'delivered', delivered_at = ?, reason = NULL"
            " WHERE id = ? AND state = 'pending'",
            (time.time(), number),
        )
        if done.rowcount:
            _add_event(connection, number, "notified")


def postpone(connection: sqlite3.Connection, number: int, reason: str, next_try: float) -> None:
    """Postpone a notification to monotonic time `next_try` without counting an attempt."""
    with transaction(connection):
        tries.postpone(connection, "notification", number, reason, next_try)


def count_failed_attempt(
    connection: sqlite3.Connection, number: int, reason: str, next_try: float, *, attempts: int
) -> bool:
    """Count a failed attempt; whether the notification is now dead, after `attempts` of them."""
    with transaction(connection):
        died = tries.count(connection, "notification", number, reason, next_try, attempts=attempts)
        if died:
            _add_event(connection, number, "not notified")
    return died


def retry(connection: sqlite3.Connection, number: int) -> None:
    """Make a dead or pending notification due at once. Raises UsageError in any other state."""
    with transaction(connection):
        tries.reopen(connection, "notification", number, "pending")
        _add_event(connection, number, "notified again by hand")


def discard(connection: sqlite3.Connection, number: int) -> None:
    """Give up a dead or pending notification. Raises UsageError in any other state."""
    with transaction(connection):
        tries.reopen(connection, "notification", number, "discarded")
        _add_event(connection, number, "notification discarded by hand")


def _add_event(connection: sqlite3.Connection, number: int, what: str) -> None:
    row = connection.execute(f"{_ROWS} WHERE n.id = ?", (number,)).fetchone()
    database.add_event(connection, row["study_uid"], what, f"{row['target']}: {row['event']}")


def undelivered(connection: sqlite3.Connection, target: str) -> list[sqlite3.Row]:
    """Pending and dead notifications for an entry, in order: id, target, study_uid, pseudonym."""
    return connection.execute(
        f"SELECT id, target, study_uid, pseudonym FROM ({_ROWS} WHERE n.target = ?"
        " AND n.state IN ('pending', 'dead')) ORDER BY id",
        (target,),
    ).fetchall()


def of_study(connection: sqlite3.Connection, study_uid: str) -> list[sqlite3.Row]:
    """Rows of `notification` of a study, newest first, each with its `event` and the event's reason (`about`)."""
    return connection.execute(
        "SELECT n.*, e.event, e.reason AS about FROM job JOIN notify_event e ON e.job_id = job.id"
        " JOIN notification n ON n.event_id = e.id WHERE job.study_uid = ? ORDER BY n.id DESC",
        (study_uid,),
    ).fetchall()


def unconfigured_targets(connection: sqlite3.Connection, targets: Collection[str]) -> dict[str, int]:
    """Entries that are not in `targets` -> number of their pending notifications, which no process sends."""
    rows = connection.execute("SELECT target, count(*) FROM notification WHERE state = 'pending' GROUP BY target")
    return {name: count for name, count in rows if name not in targets}

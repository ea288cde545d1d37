"""Priority of a study: which jobs and deliveries go first. Column `priority` of table `study`."""

import sqlite3
from enum import IntEnum


class Priority(IntEnum):
    """Of two studies that wait, the one with the smaller number goes first."""

    STAT = 0
    """Urgent, by its header or its sender."""
    LIVE = 1
    """Sent to the appliance."""
    FETCHED = 2
    """Fetched from the archive by the appliance itself."""

    @property
    def label(self) -> str:
        """Text for display; "" for an exam that is neither urgent nor fetched."""
        return {Priority.STAT: "STAT", Priority.FETCHED: "fetched"}.get(self, "")


def raise_priority(connection: sqlite3.Connection, study_uid: str, priority: Priority) -> None:
    """Give a study this priority, unless it has a higher one already: a sender may send what was fetched before.

    In the caller's transaction.
    """
    connection.execute("UPDATE study SET priority = min(priority, ?) WHERE study_uid = ?", (priority, study_uid))


def priority_of(connection: sqlite3.Connection, study_uid: str) -> Priority:
    """The priority of a study that has been received."""
    (number,) = connection.execute("SELECT priority FROM study WHERE study_uid = ?", (study_uid,)).fetchone()
    return Priority(number)


def is_outranked(connection: sqlite3.Connection, study_uid: str, now: float) -> bool:
    """Whether a job of a higher priority than that of this study waits, and is due at monotonic time `now`."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM job JOIN study USING (study_uid) WHERE job.state = 'ready' AND next_try <= ?"
        " AND priority < (SELECT priority FROM study WHERE study_uid = ?))"
    )
    return bool(connection.execute(query, (now, study_uid)).fetchone()[0])


def live_exams_wait(connection: sqlite3.Connection) -> bool:
    """Whether jobs on studies that were not fetched wait, or are processed."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM job JOIN study USING (study_uid)"
        f" WHERE job.state IN ('ready', 'running') AND priority < {Priority.FETCHED:d})"
    )
    return bool(connection.execute(query).fetchone()[0])


def fetched_waiting(connection: sqlite3.Connection) -> int:
    """Number of fetched studies whose images are not processed yet."""
    query = (
        "SELECT (SELECT count(*) FROM study WHERE state = 'receiving' AND priority = :fetched)"
        " + (SELECT count(*) FROM job JOIN study USING (study_uid)"
        " WHERE job.state IN ('ready', 'running') AND priority = :fetched)"
    )
    return int(connection.execute(query, {"fetched": Priority.FETCHED}).fetchone()[0])

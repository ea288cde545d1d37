"""Read-only queries for the status page, the metrics and `doctor`.

Counts use indices only and lists have a limit, so that the time of a query does not grow with the number of instances.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glam_deploy.appliance.state import jobs
from glam_deploy.errors import UsageError

READ_ERRORS = (sqlite3.Error,)
"""Errors that a query may raise: the file is locked for too long, damaged or gone."""

_JOBS_OF_A_VIEW = 4
"""Jobs that one view is part of, at most as a rule: one for each view of a study that arrives late."""

LATEST = 200
"""Number of latest jobs and deliveries that latency metrics are computed over."""


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection that sees one snapshot for the whole block. Raises UsageError if there is no such file."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5, isolation_level=None)
    except sqlite3.Error as error:
        raise UsageError(f"{path} cannot be read as the appliance's state ({error}): check the data folder") from error
    with closing(connection):
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        yield connection


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Number and age of what is in one stage of the queue."""

    stage: str
    count: int
    oldest_at: float | None
    """Wall clock; None if the stage is empty or age has no meaning there (done, ignored)."""


_PARCELS = "(SELECT coalesce(sum(state = '{}'), 0) FROM parcel INDEXED BY parcel_by_state)"
_NOTIFICATIONS = "(SELECT count(*) FROM notification WHERE state = '{}')"
_COUNTS: Mapping[str, str] = {
    "receiving": "SELECT count(*) FROM study WHERE state = 'receiving'",
    "waiting": "SELECT count(*) FROM job WHERE state = 'ready'",
    "working": "SELECT count(*) FROM job WHERE state = 'running'",
    "sending": f"SELECT {_PARCELS.format('pending')} + {_NOTIFICATIONS.format('pending')}",
    "failed": "SELECT count(*) FROM job WHERE state = 'dead'",
    "undelivered": f"SELECT {_PARCELS.format('dead')} + {_NOTIFICATIONS.format('dead')}",
    "done": "SELECT count(*) FROM job WHERE state = 'done'",
    "ignored": "SELECT count(*) FROM study WHERE state = 'ignored'",
}
_FIRST_OF_TARGETS = (
    "SELECT min(first) FROM (SELECT min(created_at) AS first FROM parcel WHERE id IN"
    " (SELECT min(id) FROM parcel WHERE state = '{0}' GROUP BY target) UNION ALL"
    " SELECT min(created_at) FROM notification WHERE id = (SELECT min(id) FROM notification WHERE state = '{0}'))"
)
_OLDEST: Mapping[str, str] = {
    "receiving": "SELECT min(opened_at) FROM study WHERE state = 'receiving'",
    "waiting": "SELECT created_at FROM job WHERE state = 'ready' ORDER BY id LIMIT 1",
    "working": "SELECT started_at FROM job WHERE state = 'running' ORDER BY id LIMIT 1",
    "sending": _FIRST_OF_TARGETS.format("pending"),
    "failed": "SELECT finished_at FROM job WHERE state = 'dead' ORDER BY id LIMIT 1",
    "undelivered": _FIRST_OF_TARGETS.format("dead"),
}
STAGES = tuple(_COUNTS)
"""Stages in the order in which a study goes through them. Those of jobs and deliveries count jobs and deliveries."""


def backlog(connection: sqlite3.Connection) -> list[Backlog]:
    """Number and age for each of `STAGES`, the empty ones included."""
    return [
        Backlog(stage=stage, count=_scalar(connection, query), oldest_at=_scalar(connection, _OLDEST.get(stage)))
        for stage, query in _COUNTS.items()
    ]


def _scalar(connection: sqlite3.Connection, query: str | None) -> Any:
    row = connection.execute(query).fetchone() if query else None
    return row[0] if row else None


def received(connection: sqlite3.Connection) -> int:
    """Number of instances received since the data folder was made, removed ones included."""
    return _scalar(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'instance'") or 0


def spool_bytes(connection: sqlite3.Connection) -> int:
    """Total bytes of the instances in the database."""
    total: int = _scalar(connection, "SELECT coalesce(sum(bytes), 0) FROM instance INDEXED BY instance_by_state")
    return total


FAILED_VIEWS = (
    "job_view v JOIN instance i USING (sop_uid) WHERE v.outcome = 'failed' AND i.state != 'refused' "
    f"AND v.job_id = {jobs.LATEST.format('i')}"
)
"""SQL: the views that failed, each once: of the latest job of its study, and not as an instance that was refused."""

_FAILURES: Mapping[str, str] = {
    "reception_refused": "SELECT coalesce(sum(times), 0) FROM refusal",
    "instance_refused": "SELECT count(*) FROM instance WHERE state = 'refused'",
    "instance_quarantined": "SELECT count(*) FROM quarantine WHERE NOT replaced",
    "view_failed": f"SELECT count(*) FROM {FAILED_VIEWS}",
    "job_dead": _COUNTS["failed"],
    "parcel_dead": f"SELECT {_PARCELS.format('dead')}",
    "notification_dead": f"SELECT {_NOTIFICATIONS.format('dead')}",
}


def failures_by_code(connection: sqlite3.Connection) -> dict[str, int]:
    """Number of failed items for each failure code."""
    return {code: _scalar(connection, query) for code, query in _FAILURES.items()}


_SKIPPED: Mapping[str, str] = {
    "instance": "SELECT count(*) FROM instance WHERE state = 'skipped'",
    "view": "SELECT count(*) FROM job_view WHERE outcome = 'skipped'",
}


def skipped(connection: sqlite3.Connection) -> dict[str, int]:
    """Number of items that are skipped by rule, which is no failure: received instances, and mammograms of jobs."""
    return {kind: _scalar(connection, query) for kind, query in _SKIPPED.items()}


@dataclass(frozen=True, kw_only=True)
class TargetCounts:
    """Number of a target's deliveries, or of the notifications of an entry of [[notify]], by state."""

    target: str
    pending: int
    delivered: int
    dead: int


def targets(connection: sqlite3.Connection) -> list[TargetCounts]:
    """Counts for every target and entry of [[notify]] that ever had a delivery or notification."""
    counts: dict[str, dict[str, int]] = {}
    query = "SELECT target, state, count(*) FROM {} INDEXED BY {} GROUP BY target, state"
    for index in (("parcel", "parcel_by_state"), ("notification", "notification_by_target")):
        for target, state, count in connection.execute(query.format(*index)):
            counts.setdefault(target, {})[state] = count
    states = ("pending", "delivered", "dead")
    return [
        TargetCounts(target=target, **{state: found.get(state, 0) for state in states})
        for target, found in counts.items()
    ]


_UNDELIVERED_OBJECTS = (
    "SELECT p.target, o.state IN ('sent', 'proven') AS arrived, count(*) FROM parcel p"
    " JOIN parcel_object o ON o.parcel_id = p.id"
    " WHERE p.target IN (SELECT DISTINCT target FROM parcel) AND p.state IN ('pending', 'dead') GROUP BY 1, 2"
)


def undelivered_objects(connection: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """(target, "arrived" or "missing") -> number of objects in deliveries that are pending or dead."""
    rows = connection.execute(_UNDELIVERED_OBJECTS).fetchall()
    return {(target, "arrived" if arrived else "missing"): count for target, arrived, count in rows}


@dataclass(frozen=True, kw_only=True)
class Component:
    """The last heartbeat of a process, or of a target ("target:NAME")."""

    name: str
    state: str
    detail: Mapping[str, Any]
    age: float
    """Seconds since then, monotonic."""


def components(connection: sqlite3.Connection, now: float) -> dict[str, Component]:
    """The last heartbeats by name; `now` is monotonic time."""
    rows = connection.execute("SELECT name, state, detail, beat FROM component ORDER BY name")
    return {row["name"]: _component(row, now) for row in rows}


def _component(row: sqlite3.Row, now: float) -> Component:
    detail = json.loads(row["detail"])
    age = max(0.0, now - row["beat"])
    return Component(name=row["name"], state=row["state"], detail=detail if isinstance(detail, dict) else {}, age=age)


@dataclass(frozen=True, kw_only=True)
class JobTiming:
    """Durations of one job in seconds, by the wall clock."""

    finished_at: float
    waited: float
    """From assembly to the start of work."""
    worked: float


@dataclass(frozen=True, kw_only=True)
class DeliveryTiming:
    """Duration of one delivery in seconds, by the wall clock."""

    delivered_at: float
    sent: float
    """From the end of work to the proof of delivery."""


def latest_job_timings(connection: sqlite3.Connection, limit: int = LATEST) -> list[JobTiming]:
    """Timings of the last `limit` finished jobs, newest first."""
    rows = connection.execute(
        "SELECT finished_at, started_at - created_at AS waited, finished_at - started_at AS worked FROM job "
        "WHERE state = 'done' AND started_at NOT NULL AND finished_at NOT NULL ORDER BY id DESC LIMIT ?",
        (limit,),
    )
    return [JobTiming(**dict(row)) for row in rows]


def latest_delivery_timings(connection: sqlite3.Connection, limit: int = LATEST) -> list[DeliveryTiming]:
    """Timings of the last `limit` finished deliveries of each target, newest first."""
    names = [target.target for target in targets(connection)]
    query = (
        "SELECT delivered_at, delivered_at - created_at AS sent FROM parcel "
        "WHERE target = ? AND state = 'delivered' AND delivered_at NOT NULL ORDER BY id DESC LIMIT ?"
    )
    return [DeliveryTiming(**dict(row)) for name in names for row in connection.execute(query, (name, limit))]


def latest_view_folders(connection: sqlite3.Connection, limit: int) -> list[str]:
    """Folders of the results of the last `limit` views that were processed, each once, newest first."""
    rows = connection.execute(
        "SELECT folder FROM job_view WHERE outcome = 'done' AND folder NOT NULL ORDER BY job_id DESC LIMIT ?",
        (limit * _JOBS_OF_A_VIEW,),
    )
    return list(dict.fromkeys(row["folder"] for row in rows))[:limit]


def integrity_error(connection: sqlite3.Connection) -> str:
    """The first error of SQLite's quick check; "" if the file is sound."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return "" if found == "ok" else str(found).rpartition("\n")[2]  # after a line that names the database


def is_corruption(error: Exception) -> bool:
    """Whether SQLite could not read the file because it is damaged or not a database."""
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_CORRUPT", "SQLITE_NOTADB")


def latest_timestamp(connection: sqlite3.Connection) -> float:
    """The latest wall clock time in the database, seconds since 1970; 0 if there is none."""
    (component,) = connection.execute("SELECT max(at) FROM component").fetchone()
    instance = connection.execute("SELECT received_at FROM instance ORDER BY arrival DESC LIMIT 1").fetchone()
    return max(component or 0.0, instance[0] if instance else 0.0)

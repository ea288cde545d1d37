"""What the status page and the metrics ask of `state.db`: reads only.

Counts come from indices alone and lists have a limit, so that an appliance with a hundred thousand instances answers
as quickly as one with ten.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glam_deploy.errors import UsageError

UNREADABLE = (sqlite3.Error,)
"""What any reading here may raise: a file that is locked for too long, damaged or gone."""

LATEST = 200
"""Jobs and parcels that a figure of latency is taken over."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, and sees one moment for the whole block. Raises UsageError for no file."""
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
    """What stands in one state of the queue."""

    stage: str
    count: int
    oldest_at: float | None
    """Wall clock; None where nothing is there, or where age means nothing (done, ignored)."""


_COUNTS: Mapping[str, str] = {
    "receiving": "SELECT count(*) FROM study WHERE state = 'receiving'",
    "waiting": "SELECT count(*) FROM job WHERE state = 'ready'",
    "working": "SELECT count(*) FROM job WHERE state = 'running'",
    "sending": "SELECT coalesce(sum(state = 'pending'), 0) FROM parcel INDEXED BY parcel_by_state",
    "failed": "SELECT count(*) FROM job WHERE state = 'dead'",
    "undelivered": "SELECT coalesce(sum(state = 'dead'), 0) FROM parcel INDEXED BY parcel_by_state",
    "done": "SELECT count(*) FROM job WHERE state = 'done'",
    "ignored": "SELECT count(*) FROM study WHERE state = 'ignored'",
}
_FIRST_OF_TARGETS = (
    "SELECT min(created_at) FROM parcel WHERE id IN (SELECT min(id) FROM parcel WHERE state = '{}' GROUP BY target)"
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
"""In the order that a study goes through them. Those of jobs and parcels count jobs and parcels."""


def backlog(connection: sqlite3.Connection) -> list[Backlog]:
    """Each of `STAGES`, also the empty ones."""
    return [
        Backlog(stage=stage, count=_value(connection, query), oldest_at=_value(connection, _OLDEST.get(stage)))
        for stage, query in _COUNTS.items()
    ]


def _value(connection: sqlite3.Connection, query: str | None) -> Any:
    row = connection.execute(query).fetchone() if query else None
    return row[0] if row else None


def received(connection: sqlite3.Connection) -> int:
    """Instances since the data folder was made, those too that have been cleaned away."""
    return _value(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'instance'") or 0


def spool_bytes(connection: sqlite3.Connection) -> int:
    """Of the instances that are known now."""
    total: int = _value(connection, "SELECT coalesce(sum(bytes), 0) FROM instance INDEXED BY instance_by_state")
    return total


_FAILURES: Mapping[str, str] = {
    "instance_refused": "SELECT count(*) FROM instance WHERE state = 'refused'",
    "instance_skipped": "SELECT count(*) FROM instance WHERE state = 'skipped'",
    "instance_quarantined": "SELECT count(*) FROM quarantine",
    "view_failed": "SELECT count(*) FROM job_view WHERE outcome = 'failed'",
    "view_skipped": "SELECT count(*) FROM job_view WHERE outcome = 'skipped'",
    "job_dead": _COUNTS["failed"],
    "parcel_dead": _COUNTS["undelivered"],
}


def failures_by_code(connection: sqlite3.Connection) -> dict[str, int]:
    """How much has gone wrong, or was passed over, in each way that the appliance knows."""
    return {code: _value(connection, query) for code, query in _FAILURES.items()}


@dataclass(frozen=True, kw_only=True)
class TargetCounts:
    """A target's parcels."""

    target: str
    pending: int
    delivered: int
    dead: int


def targets(connection: sqlite3.Connection) -> list[TargetCounts]:
    """Of every target that ever got a parcel, by name."""
    counts: dict[str, dict[str, int]] = {}
    query = "SELECT target, state, count(*) FROM parcel INDEXED BY parcel_by_state GROUP BY target, state"
    for target, state, count in connection.execute(query):
        counts.setdefault(target, {})[state] = count
    states = ("pending", "delivered", "dead")
    return [
        TargetCounts(target=target, **{state: found.get(state, 0) for state in states})
        for target, found in counts.items()
    ]


@dataclass(frozen=True, kw_only=True)
class Component:
    """The last word of a process, or of a target ("target:NAME")."""

    name: str
    state: str
    detail: Mapping[str, Any]
    age: float
    """Steady seconds since."""


def components(connection: sqlite3.Connection, now: float) -> dict[str, Component]:
    """By name; `now` is steady time."""
    rows = connection.execute("SELECT name, state, detail, beat FROM component ORDER BY name")
    return {row["name"]: _component(row, now) for row in rows}


def _component(row: sqlite3.Row, now: float) -> Component:
    detail = json.loads(row["detail"])
    age = max(0.0, now - row["beat"])
    return Component(name=row["name"], state=row["state"], detail=detail if isinstance(detail, dict) else {}, age=age)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How long one job took, in seconds; wall clock, so that a change of the clock shows as what it is."""

    finished_at: float
    waited: float
    """From assembly to the first step of work."""
    worked: float


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """How long one parcel took to its target."""

    delivered_at: float
    sent: float
    """From the end of work to proof of delivery."""


def latest_finished(connection: sqlite3.Connection, limit: int = LATEST) -> list[Finished]:
    """The last jobs that were done, newest first."""
    rows = connection.execute(
        "SELECT finished_at, started_at - created_at AS waited, finished_at - started_at AS worked FROM job "
        "WHERE state = 'done' AND started_at NOT NULL AND finished_at NOT NULL ORDER BY id DESC LIMIT ?",
        (limit,),
    )
    return [Finished(**dict(row)) for row in rows]


def latest_delivered(connection: sqlite3.Connection, limit: int = LATEST) -> list[Delivered]:
    """The last parcels of each target that were delivered, newest first."""
    names = [target.target for target in targets(connection)]
    query = (
        "SELECT delivered_at, delivered_at - created_at AS sent FROM parcel "
        "WHERE target = ? AND state = 'delivered' AND delivered_at NOT NULL ORDER BY id DESC LIMIT ?"
    )
    return [Delivered(**dict(row)) for name in names for row in connection.execute(query, (name, limit))]

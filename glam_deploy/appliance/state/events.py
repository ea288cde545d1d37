"""The timeline of each study, and the heartbeats of processes."""

import json
import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from glam_deploy.appliance.state.database import MonotonicClock

HEARTBEAT_TIMEOUT_S = 15.0
"""A process, which writes a heartbeat every second, is reported as silent after this time without one."""


def add_event(connection: sqlite3.Connection, study_uid: str, what: str, detail: str = "") -> None:
    """Add a line to the study's timeline, in the transaction that it describes. `detail` must hold no identifier."""
    connection.execute(
        "INSERT INTO event (study_uid, at, what, detail) VALUES (?, ?, ?, ?)", (study_uid, time.time(), what, detail)
    )


def record_heartbeat(
    connection: sqlite3.Connection, monotonic: MonotonicClock, name: str, state: str, detail: Mapping[str, Any]
) -> None:
    """Store the state of a process, or of a target ("target:NAME"); `detail` is JSON-ready and holds no identifier."""
    connection.execute(
        "INSERT OR REPLACE INTO component (name, state, detail, beat, at) VALUES (?, ?, ?, ?, ?)",
        (name, state, json.dumps(detail), monotonic(), time.time()),
    )


def last_heartbeats(connection: sqlite3.Connection) -> dict[str, float]:
    """Name -> monotonic time of the last heartbeat."""
    return {row["name"]: row["beat"] for row in connection.execute("SELECT name, beat FROM component")}


def last_state(connection: sqlite3.Connection, name: str) -> str | None:
    """The state in the last heartbeat of a process; None if it never wrote one."""
    row = connection.execute("SELECT state FROM component WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row["state"])

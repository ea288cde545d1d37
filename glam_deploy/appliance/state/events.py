"""The timeline of a study and the last word of each process."""

import json
import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from glam_deploy.appliance.state.steady import Steady

SILENT_S = 15.0
"""A process that beats every second and has not for so long is silent: dead, stuck, or unable to write."""


def note(connection: sqlite3.Connection, study_uid: str, what: str, detail: str = "") -> None:
    """One more line in the study's timeline; inside the transaction that it tells of. `detail` holds no identifier."""
    connection.execute(
        "INSERT INTO event (study_uid, at, what, detail) VALUES (?, ?, ?, ?)", (study_uid, time.time(), what, detail)
    )


def beat(connection: sqlite3.Connection, steady: Steady, name: str, state: str, detail: Mapping[str, Any]) -> None:
    """A process (or a target, "target:NAME") says how it is; `detail` is JSON-ready and holds no identifier."""
    connection.execute(
        "INSERT OR REPLACE INTO component (name, state, detail, beat, at) VALUES (?, ?, ?, ?, ?)",
        (name, state, json.dumps(detail), steady(), time.time()),
    )


def beats(connection: sqlite3.Connection) -> dict[str, float]:
    """Name -> when it last said how it is, in steady time."""
    return {row["name"]: row["beat"] for row in connection.execute("SELECT name, beat FROM component")}


def last_state(connection: sqlite3.Connection, name: str) -> str | None:
    """What a process last said of itself; None where it never did."""
    row = connection.execute("SELECT state FROM component WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row["state"])

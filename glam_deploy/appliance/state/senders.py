"""Senders: when each one last sent an instance, and what of it was refused.

Any peer on the network can cause refusals under any AE title, so the number of rows is limited; older ones are added up
under the name "".
"""

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

from glam_deploy.appliance.state.database import transaction

ASSOCIATION = "association"
"""Code of a refused association or connection; other codes are statuses in hexadecimal, as "A700"."""
MOST_REFUSALS = 1000
"""Rows of table `refusal`."""
LISTED = 100
"""Most senders in a list, the latest ones."""


def record_stored(connection: sqlite3.Connection, name: str) -> None:
    """Count an instance that was stored, or was stored already; in the caller's transaction."""
    connection.execute(
        "INSERT INTO sender (name, last_at, instances) VALUES (?, ?, 1)"
        " ON CONFLICT DO UPDATE SET last_at = excluded.last_at, instances = instances + 1",
        (name, time.time()),
    )


def record_refusal(connection: sqlite3.Connection, name: str, code: str, reason: str, *, times: int = 1) -> None:
    """Count an instance or association that was refused; `reason` holds no identifier."""
    with transaction(connection):
        _add(connection, {"sender": name, "code": code, "reason": reason, "times": times, "last_at": time.time()})
        rows = connection.execute(
            "SELECT * FROM refusal WHERE sender != '' ORDER BY last_at DESC LIMIT -1 OFFSET ?", (MOST_REFUSALS,)
        ).fetchall()
        for row in rows:
            connection.execute("DELETE FROM refusal WHERE sender = ? AND code = ?", (row["sender"], row["code"]))
            _add(connection, dict(row) | {"sender": ""})


def _add(connection: sqlite3.Connection, row: Mapping[str, object]) -> None:
    """Add a row of `refusal` to the one of the same sender and code."""
    connection.execute(
        "INSERT INTO refusal (sender, code, times, last_at, reason) VALUES (:sender, :code, :times, :last_at, :reason)"
        " ON CONFLICT DO UPDATE SET times = times + excluded.times, last_at = excluded.last_at,"
        " reason = excluded.reason",
        row,
    )


@dataclass(frozen=True, kw_only=True)
class SenderState:
    """A peer that sent or tried to send."""

    name: str
    last_at: float | None
    """Wall clock of the last instance that was stored; None if there was none."""
    instances: int
    refused: int
    """Instances that were refused."""
    rejected: int
    """Associations that were rejected."""
    refused_at: float | None
    """Wall clock of the last refusal of either kind."""
    reason: str
    """Its reason."""


def senders(connection: sqlite3.Connection) -> list[SenderState]:
    """At most `LISTED` senders, and as many peers that were refused, sorted by name."""
    sent = {
        row["name"]: row for row in connection.execute("SELECT * FROM sender ORDER BY last_at DESC LIMIT ?", (LISTED,))
    }
    refused: dict[str, list[sqlite3.Row]] = {}
    query = "SELECT * FROM refusal WHERE sender != '' ORDER BY last_at DESC LIMIT ?"
    for row in connection.execute(query, (LISTED,)):
        refused.setdefault(row["sender"], []).append(row)
    return [_state(name, sent.get(name), refused.get(name, [])) for name in sorted(sent.keys() | refused.keys())]


def _state(name: str, sent: sqlite3.Row | None, refusals: list[sqlite3.Row]) -> SenderState:
    latest = refusals[0] if refusals else None
    return SenderState(
        name=name,
        last_at=sent["last_at"] if sent else None,
        instances=sent["instances"] if sent else 0,
        refused=sum(row["times"] for row in refusals if row["code"] != ASSOCIATION),
        rejected=sum(row["times"] for row in refusals if row["code"] == ASSOCIATION),
        refused_at=latest["last_at"] if latest else None,
        reason=latest["reason"] if latest else "",
    )


def refusals_by_code(connection: sqlite3.Connection) -> dict[str, int]:
    """Number of refusals since the data folder was made, for each code."""
    return {
        row["code"]: row["times"]
        for row in connection.execute("SELECT code, sum(times) AS times FROM refusal GROUP BY code ORDER BY code")
    }

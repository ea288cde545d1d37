"""What deliveries and notifications share: attempts, postponing, the dead letter state, and a person's decision.

Their tables `parcel` and `notification` have the columns state, attempts, next_try and reason with one meaning:

    pending -> dead                   attempts exhausted
    dead, pending -> pending          `reopen` by a person, who wants it retried at once
    dead, pending -> discarded        `reopen` by a person

A retry requested by a person stays in `next_try` until the worker of the target has read it. All functions run in the
caller's transaction, unless they say otherwise.
"""

import sqlite3
from typing import Literal

from glam_deploy.appliance.state.database import transaction
from glam_deploy.errors import UsageError

Table = Literal["parcel", "notification"]

RETRY_NOW = -1.0
"""Value of `next_try` for what a person wants retried at once; monotonic times are never below 0."""
_POSTPONED = f"iif(next_try = {RETRY_NOW}, next_try, max(next_try, ?))"
"""SQL for `next_try` after a failed try: a retry that a person requested meanwhile is kept."""


def take_retry_request(connection: sqlite3.Connection, table: Table, target: str) -> bool:
    """Whether a person asked to retry something for `target`; if so, all that is pending for it becomes due.

    In a transaction of its own.
    """
    waiting = "target = ? AND state = 'pending'"
    if not connection.execute(
        f"SELECT 1 FROM {table} WHERE {waiting} AND next_try = {RETRY_NOW}", (target,)
    ).fetchone():
        return False
    with transaction(connection):
        connection.execute(f"UPDATE {table} SET next_try = 0 WHERE {waiting}", (target,))
    return True


def postpone(connection: sqlite3.Connection, table: Table, number: int, reason: str, next_try: float) -> None:
    """Postpone to monotonic time `next_try` without counting an attempt."""
    connection.execute(
        f"UPDATE {table} SET reason = ?, next_try = {_POSTPONED} WHERE id = ? AND state = 'pending'",
        (reason, next_try, number),
    )


def count(
    connection: sqlite3.Connection, table: Table, number: int, reason: str, next_try: float, *, attempts: int
) -> bool:
    """Count a failed attempt; whether this was the last of `attempts`, so that the state is now "dead"."""
    connection.execute(
        f"UPDATE {table} SET reason = ?, next_try = {_POSTPONED}, attempts = attempts + 1"
        " WHERE id = ? AND state = 'pending'",
        (reason, next_try, number),
    )
    died = connection.execute(
        f"UPDATE {table} SET state = 'dead' WHERE id = ? AND state = 'pending' AND attempts >= ?", (number, attempts)
    )
    return bool(died.rowcount)


def reopen(connection: sqlite3.Connection, table: Table, number: int, state: Literal["pending", "discarded"]) -> None:
    """Put something dead or pending into `state` by a person's decision; what is then pending is retried at once,
    and its reason is forgotten.

    Raises UsageError in any other state.
    """
    changed = connection.execute(
        f"UPDATE {table} SET state = ?, attempts = 0, next_try = {RETRY_NOW},"
        " reason = iif(? = 'pending', NULL, reason) WHERE id = ? AND state IN ('dead', 'pending')",
        (state, state, number),
    )
    if not changed.rowcount:
        what = "delivery" if table == "parcel" else "notification"
        row = connection.execute(f"SELECT state FROM {table} WHERE id = ?", (number,)).fetchone()
        was = f"is {row['state']}" if row else "does not exist"
        raise UsageError(f"{what} {number} {was}: only a dead or pending {what} can be retried or discarded")

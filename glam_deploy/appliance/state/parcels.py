"""Parcels: a job's results on their way to a target. Every transition of `parcel` and `parcel_object`.

    parcel   pending -> delivered              every object is proven, or sent where no proof is asked for
             pending -> dead                   attempts exhausted
             dead, pending -> pending          `retry` by a person
             dead, pending -> discarded        `discard` by a person
    object   pending -> sent -> proven
             sent -> pending                   the target does not show it
             pending, sent -> dead -> pending  with its parcel, or with a later parcel that needs it too

What a dispatcher does is void for a parcel that a person has discarded meanwhile. A person who wants one tried again
knows more than a dispatcher that waits: that wish stands in `next_try` until the dispatcher has taken it.
"""

import sqlite3
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from glam_deploy.appliance.state import events
from glam_deploy.appliance.state.database import transaction
from glam_deploy.errors import UsageError

_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
"""How the SOP class UIDs of structured reports begin (PS3.6 annex A)."""

_WISHED = -1.0
"""The `next_try` of a parcel that a person wants tried at once; no steady time is below 0."""
_LATER = f"iif(next_try = {_WISHED}, next_try, max(next_try, ?))"
"""SQL for `next_try` after a try in vain: a wish that came during it stands."""


@dataclass(frozen=True, kw_only=True)
class ResultObject:
    """One DICOM object that a job made."""

    sop_uid: str
    sop_class: str
    path: str
    """Relative to the data folder."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A parcel that is to be sent."""

    id: int
    target: str
    study_uid: str
    pseudonym: str
    """What logs call the study."""
    attempts: int


@dataclass(frozen=True, kw_only=True)
class ParcelObject:
    """An object that is not proven to be there."""

    sop_uid: str
    path: str
    """Relative to the data folder."""
    sent: bool
    """The target has answered with success."""
    reason: str
    """What it answered last, where that was no plain success."""


def enqueue(
    connection: sqlite3.Connection, job_id: int, targets: Collection[str], objects: Sequence[ResultObject]
) -> None:
    """One parcel a target with those of `objects` that are not on their way there; inside the caller's transaction.

    An object that belongs to an earlier parcel stays with it, unless it died there: then it moves into this one. A job
    that has a parcel for a target already gets no second one.
    """
    for target in targets:
        made = connection.execute(
            "INSERT OR IGNORE INTO parcel (job_id, target, state, created_at) VALUES (?, ?, 'pending', ?)",
            (job_id, target, time.time()),
        )
        if made.rowcount:
            connection.executemany(
                "INSERT INTO parcel_object (target, sop_uid, parcel_id, sop_class, path, state)"
                " VALUES (?, ?, ?, ?, ?, 'pending') ON CONFLICT DO UPDATE SET parcel_id = excluded.parcel_id,"
                " path = excluded.path, state = 'pending', reason = NULL WHERE state = 'dead'",
                [(target, each.sop_uid, made.lastrowid, each.sop_class, each.path) for each in objects],
            )


def next_parcel(
    connection: sqlite3.Connection, target: str, now: float, *, last: Collection[int] = ()
) -> Parcel | None:
    """The parcel whose turn it is at the steady time `now`: the oldest, those in `last` after all others."""
    marks = ", ".join("?" * len(last))
    row = connection.execute(
        "SELECT parcel.id, target, job.study_uid, pseudonym, parcel.attempts FROM parcel"
        " JOIN job ON job.id = job_id JOIN study ON study.study_uid = job.study_uid"
        " WHERE target = ? AND parcel.state = 'pending' AND parcel.next_try <= ?"
        f" ORDER BY parcel.id IN ({marks}), parcel.id LIMIT 1",
        (target, now, *last),
    ).fetchone()
    return Parcel(**row) if row else None


def take_wish(connection: sqlite3.Connection, target: str) -> bool:
    """Whether a person wants a parcel for `target` tried at once; then all that wait for it are due."""
    waiting = "target = ? AND state = 'pending'"
    if not connection.execute(f"SELECT 1 FROM parcel WHERE {waiting} AND next_try = {_WISHED}", (target,)).fetchone():
        return False
    with transaction(connection):
        connection.execute(f"UPDATE parcel SET next_try = 0 WHERE {waiting}", (target,))
    return True


def unproven(connection: sqlite3.Connection, parcel_id: int) -> list[ParcelObject]:
    """What of a parcel is pending or sent: reports last, which refer to the rest."""
    rows = connection.execute(
        "SELECT sop_uid, path, state, coalesce(reason, '') AS reason FROM parcel_object"
        " WHERE parcel_id = ? AND state IN ('pending', 'sent')"
        " ORDER BY sop_class LIKE ?, path",
        (parcel_id, f"{_REPORTS}%"),
    )
    return [
        ParcelObject(sop_uid=row["sop_uid"], path=row["path"], sent=row["state"] == "sent", reason=row["reason"])
        for row in rows
    ]


def sent(connection: sqlite3.Connection, parcel_id: int, sop_uid: str, reason: str = "") -> None:
    """The target has answered with success; `reason` is a warning of its."""
    _set(connection, parcel_id, [sop_uid], "sent", reason)


def refused(connection: sqlite3.Connection, parcel_id: int, sop_uid: str, reason: str) -> None:
    """The target will not take it: it stays pending, with the reason."""
    _set(connection, parcel_id, [sop_uid], "pending", reason)


def proven(connection: sqlite3.Connection, parcel_id: int, sop_uids: Iterable[str]) -> None:
    """The target shows these objects."""
    _set(connection, parcel_id, sop_uids, "proven", "")


def lost(connection: sqlite3.Connection, parcel_id: int, sop_uids: Iterable[str]) -> None:
    """The target has answered with success, and does not have them: they are sent again."""
    _set(connection, parcel_id, sop_uids, "pending", "the target took it and does not show it")


def _set(connection: sqlite3.Connection, parcel_id: int, sop_uids: Iterable[str], state: str, reason: str) -> None:
    with transaction(connection):
        _set_within(connection, parcel_id, sop_uids, state, reason)


def _set_within(
    connection: sqlite3.Connection, parcel_id: int, sop_uids: Iterable[str], state: str, reason: str
) -> None:
    connection.executemany(
        "UPDATE parcel_object SET state = ?, reason = nullif(?, '')"
        " WHERE parcel_id = ? AND sop_uid = ? AND state IN ('pending', 'sent')",
        [(state, reason, parcel_id, sop_uid) for sop_uid in sop_uids],
    )


def deliver(connection: sqlite3.Connection, parcel_id: int, *, proof: bool) -> bool:
    """Close a parcel of which nothing is left to do; whether that is so. Without `proof`, sent is enough."""
    with transaction(connection):
        return _deliver(connection, parcel_id, proof)


def _deliver(connection: sqlite3.Connection, parcel_id: int, proof: bool) -> bool:
    """Inside a transaction."""
    open_states = "'pending', 'sent', 'dead'" if proof else "'pending', 'dead'"
    done = connection.execute(
        "UPDATE parcel SET state = 'delivered', delivered_at = ?, reason = NULL WHERE id = ? AND state = 'pending'"
        f" AND NOT EXISTS (SELECT 1 FROM parcel_object WHERE parcel_id = parcel.id AND state IN ({open_states}))",
        (time.time(), parcel_id),
    ).rowcount
    if done:
        _note(connection, parcel_id, "delivered")
    return bool(done)


def put_off(connection: sqlite3.Connection, parcel_id: int, reason: str, next_try: float) -> None:
    """Tried in vain by nobody's fault that is known: not before the steady time `next_try` again."""
    with transaction(connection):
        connection.execute(
            f"UPDATE parcel SET reason = ?, next_try = {_LATER} WHERE id = ? AND state = 'pending'",
            (reason, next_try, parcel_id),
        )


def failed(connection: sqlite3.Connection, parcel_id: int, reason: str, next_try: float, *, attempts: int) -> str:
    """An attempt in vain that counts; the parcel's state now, which is dead where it was the last of `attempts`."""
    with transaction(connection):
        connection.execute(
            f"UPDATE parcel SET reason = ?, next_try = {_LATER}, attempts = attempts + 1"
            " WHERE id = ? AND state = 'pending'",
            (reason, next_try, parcel_id),
        )
        died = connection.execute(
            "UPDATE parcel SET state = 'dead' WHERE id = ? AND state = 'pending' AND attempts >= ?",
            (parcel_id, attempts),
        ).rowcount
        if died:
            _bury(connection, parcel_id)
            _note(connection, parcel_id, "undeliverable")
    (state,) = connection.execute("SELECT state FROM parcel WHERE id = ?", (parcel_id,)).fetchone()
    return str(state)


def ask_commitment(connection: sqlite3.Connection, parcel_id: int, transaction_uid: str) -> None:
    """Storage commitment is about to be asked for: the report may come to any process."""
    with transaction(connection):
        connection.execute("UPDATE parcel SET commitment = ? WHERE id = ?", (transaction_uid, parcel_id))


def report(
    connection: sqlite3.Connection, transaction_uid: str, *, committed: Iterable[str], failed: Iterable[str]
) -> bool:
    """A storage commitment report has come; False where nobody waits for it (any more)."""
    with transaction(connection):
        row = connection.execute("SELECT id FROM parcel WHERE commitment = ?", (transaction_uid,)).fetchone()
        if row is None:
            return False
        _set_within(connection, row["id"], committed, "proven", "")
        _set_within(connection, row["id"], failed, "pending", "the target does not commit itself to keep it")
        _deliver(connection, row["id"], True)
    return True


def retry(connection: sqlite3.Connection, parcel_id: int) -> None:
    """Try a dead or waiting parcel again, with all its attempts, and its target at once, however long that was down.

    Raises UsageError for any other.
    """
    with transaction(connection):
        _take_up(connection, parcel_id, "pending", _WISHED)
        connection.execute(
            "UPDATE parcel_object SET state = 'pending' WHERE parcel_id = ? AND state = 'dead'", (parcel_id,)
        )
        _note(connection, parcel_id, "sent again by hand")


def discard(connection: sqlite3.Connection, parcel_id: int) -> None:
    """Give a dead or waiting parcel up: nothing more is sent of it. Raises UsageError for any other."""
    with transaction(connection):
        _take_up(connection, parcel_id, "discarded", 0)
        _bury(connection, parcel_id)
        _note(connection, parcel_id, "discarded by hand")


def _take_up(connection: sqlite3.Connection, parcel_id: int, state: str, next_try: float) -> None:
    changed = connection.execute(
        "UPDATE parcel SET state = ?, attempts = 0, next_try = ? WHERE id = ? AND state IN ('dead', 'pending')",
        (state, next_try, parcel_id),
    )
    if not changed.rowcount:
        row = connection.execute("SELECT state FROM parcel WHERE id = ?", (parcel_id,)).fetchone()
        was = f"is {row['state']}" if row else "does not exist"
        raise UsageError(f"parcel {parcel_id} {was}: only one that is dead or pending can be sent again or discarded")


def _bury(connection: sqlite3.Connection, parcel_id: int) -> None:
    connection.execute(
        "UPDATE parcel_object SET state = 'dead' WHERE parcel_id = ? AND state IN ('pending', 'sent')", (parcel_id,)
    )


def _note(connection: sqlite3.Connection, parcel_id: int, what: str) -> None:
    row = connection.execute(
        "SELECT study_uid, target FROM parcel JOIN job ON job.id = job_id WHERE parcel.id = ?", (parcel_id,)
    ).fetchone()
    events.note(connection, row["study_uid"], what, row["target"])


def undelivered(connection: sqlite3.Connection, target: str) -> list[sqlite3.Row]:
    """What waits for a target or is dead there, in order of arrival: id, target, study_uid, pseudonym."""
    return connection.execute(
        "SELECT parcel.id, target, study_uid, pseudonym FROM parcel JOIN job ON job.id = job_id"
        " JOIN study USING (study_uid) WHERE target = ? AND parcel.state IN ('pending', 'dead') ORDER BY parcel.id",
        (target,),
    ).fetchall()


def strangers(connection: sqlite3.Connection, targets: Collection[str]) -> dict[str, int]:
    """How many parcels wait for targets that are not in `targets`, by name: nobody will send them."""
    rows = connection.execute("SELECT target, count(*) FROM parcel WHERE state = 'pending' GROUP BY target")
    return {name: count for name, count in rows if name not in targets}

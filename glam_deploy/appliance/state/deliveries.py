"""Deliveries: the sending of one job's results to one target. All transitions of `parcel` and `parcel_object`.

    delivery   pending -> delivered              every object is proven, or sent if no proof is configured
               pending -> dead                   attempts exhausted
               dead, pending -> pending          `retry` by a person
               dead, pending -> discarded        `discard` by a person
               dead, pending -> discarded        `withdraw`: its results are out of date
    object     pending -> sent -> proven
               sent -> pending                   the target does not show it
               pending, sent -> dead -> pending  with its delivery, or with a later delivery that needs it too; a sent
                                                 object stays sent if no proof is configured

Transitions of a delivery that a person has discarded meanwhile have no effect. `attempts.py` has what is common with
notifications.
"""

import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from glam_deploy.appliance.state import attempts as tries
from glam_deploy.appliance.state import database, notify_events
from glam_deploy.appliance.state.database import transaction

_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
"""Prefix of the SOP class UIDs of structured reports (PS3.6 annex A)."""


@dataclass(frozen=True, kw_only=True)
class ResultObject:
    """One DICOM object made by a job."""

    kind: str
    """By the name of its switch in [results], as its file."""
    sop_uid: str
    sop_class: str
    path: str
    """Relative to the data folder."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A delivery that is to be sent."""

    id: int
    target: str
    study_uid: str
    pseudonym: str
    """Name of the study in logs."""
    attempts: int


@dataclass(frozen=True, kw_only=True)
class DeliveryObject:
    """An object of a delivery that is not proven yet."""

    sop_uid: str
    path: str
    """Relative to the data folder."""
    sent: bool
    """Whether the target has answered the store with success."""


def enqueue(connection: sqlite3.Connection, job_id: int, results: Mapping[str, Sequence[ResultObject]]) -> None:
    """Queue a delivery per target with those of its objects that no other delivery sends; in the caller's transaction.

    An object of an earlier delivery stays with it, unless that one is dead: then it moves here. A job that already has
    a delivery for a target gets no second one.
    """
    for target, objects in results.items():
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


def next_delivery(
    connection: sqlite3.Connection, target: str, now: float, *, last: Collection[int] = ()
) -> Delivery | None:
    """The oldest delivery of the highest priority for `target` that is due at monotonic time `now`.

    Those in `last` come after all others.
    """
    marks = ", ".join("?" * len(last))
    row = connection.execute(
        "SELECT parcel.id, target, job.study_uid, pseudonym, parcel.attempts FROM parcel"
        " JOIN job ON job.id = job_id JOIN study ON study.study_uid = job.study_uid"
        " WHERE target = ? AND parcel.state = 'pending' AND parcel.next_try <= ?"
        f" ORDER BY parcel.id IN ({marks}), priority, parcel.id LIMIT 1",
        (target, now, *last),
    ).fetchone()
    return Delivery(**row) if row else None


def take_retry_request(connection: sqlite3.Connection, target: str) -> bool:
    """Whether a person asked to retry a delivery for `target`; if so, all pending deliveries for it become due."""
    return tries.take_retry_request(connection, "parcel", target)


def ask_before_sending(connection: sqlite3.Connection, targets: Collection[str]) -> None:
    """Let the next session of each pending delivery first ask its target for the objects, and send those it lacks.

    For a state that may be older than the targets'. `targets`: those that answer queries or storage commitment.
    """
    with transaction(connection):
        connection.executemany(
            "UPDATE parcel_object SET state = 'sent' WHERE target = ? AND state = 'pending'"
            " AND parcel_id IN (SELECT id FROM parcel WHERE state = 'pending')",
            [(target,) for target in targets],
        )


def unproven(connection: sqlite3.Connection, delivery_id: int) -> list[DeliveryObject]:
    """Pending and sent objects of a delivery; reports last, since they refer to the others."""
    rows = connection.execute(
        "SELECT sop_uid, path, state FROM parcel_object WHERE parcel_id = ? AND state IN ('pending', 'sent')"
        " ORDER BY sop_class LIKE ?, path",
        (delivery_id, f"{_REPORTS}%"),
    )
    return [DeliveryObject(sop_uid=row["sop_uid"], path=row["path"], sent=row["state"] == "sent") for row in rows]


def mark_sent(connection: sqlite3.Connection, delivery_id: int, sop_uid: str, reason: str = "") -> None:
    """Record that the target answered with success; `reason`: the text of a warning status."""
    _set(connection, delivery_id, [sop_uid], "sent", reason)


def mark_refused(connection: sqlite3.Connection, delivery_id: int, sop_uid: str, reason: str) -> None:
    """Record that the target refused an object: it stays pending, with the reason."""
    _set(connection, delivery_id, [sop_uid], "pending", reason)


def mark_proven(connection: sqlite3.Connection, delivery_id: int, sop_uids: Iterable[str]) -> None:
    """Record that the target shows these objects."""
    _set(connection, delivery_id, sop_uids, "proven")


def mark_lost(connection: sqlite3.Connection, delivery_id: int, sop_uids: Iterable[str]) -> None:
    """Record that the target does not show objects that it had accepted: they are sent again."""
    _set(connection, delivery_id, sop_uids, "pending", "the target accepted it but does not show it")


def _set(
    connection: sqlite3.Connection, delivery_id: int, sop_uids: Iterable[str], state: str, reason: str = ""
) -> None:
    with transaction(connection):
        _set_within(connection, delivery_id, sop_uids, state, reason)


def _set_within(
    connection: sqlite3.Connection, delivery_id: int, sop_uids: Iterable[str], state: str, reason: str = ""
) -> None:
    connection.executemany(
        "UPDATE parcel_object SET state = ?, reason = nullif(?, '')"
        " WHERE parcel_id = ? AND sop_uid = ? AND state IN ('pending', 'sent')",
        [(state, reason, delivery_id, sop_uid) for sop_uid in sop_uids],
    )


def complete(connection: sqlite3.Connection, delivery_id: int, *, proof: bool) -> bool:
    """Mark a delivery as delivered if nothing of it is left to send; whether it is. Without `proof`, sent is enough."""
    with transaction(connection):
        return _complete(connection, delivery_id, proof)


def _complete(connection: sqlite3.Connection, delivery_id: int, proof: bool) -> bool:
    """`complete` inside the caller's transaction."""
    open_states = "'pending', 'sent', 'dead'" if proof else "'pending', 'dead'"
    done = connection.execute(
        "UPDATE parcel SET state = 'delivered', delivered_at = ?, reason = NULL WHERE id = ? AND state = 'pending'"
        f" AND NOT EXISTS (SELECT 1 FROM parcel_object WHERE parcel_id = parcel.id AND state IN ({open_states}))",
        (time.time(), delivery_id),
    ).rowcount
    if done:
        _add_event(connection, delivery_id, "delivered")
        notify_events.record_if_delivered(connection, _job_and_target(connection, delivery_id)[0])
    return bool(done)


def postpone(connection: sqlite3.Connection, delivery_id: int, reason: str, next_try: float) -> None:
    """Postpone a delivery to monotonic time `next_try` without counting an attempt."""
    with transaction(connection):
        tries.postpone(connection, "parcel", delivery_id, reason, next_try)


def count_failed_attempt(
    connection: sqlite3.Connection, delivery_id: int, reason: str, next_try: float, *, attempts: int, proof: bool = True
) -> str:
    """Count a failed attempt; the delivery's new state, which is "dead" after `attempts` of them.

    Then all that did not arrive is dead. Without `proof`, what the target accepted has arrived and is not sent again.
    """
    with transaction(connection):
        if tries.count(connection, "parcel", delivery_id, reason, next_try, attempts=attempts):
            _mark_objects_dead(connection, delivery_id, _UNPROVEN if proof else ("pending",))
            _add_event(connection, delivery_id, "undeliverable")
            job_id, target = _job_and_target(connection, delivery_id)
            notify_events.record(connection, job_id, "failed", f"not delivered to {target}: {reason}")
    (state,) = connection.execute("SELECT state FROM parcel WHERE id = ?", (delivery_id,)).fetchone()
    return str(state)


def record_commitment_request(connection: sqlite3.Connection, delivery_id: int, transaction_uid: str) -> None:
    """Store the transaction UID of a storage commitment request before it is sent; any process may get the report."""
    with transaction(connection):
        connection.execute("UPDATE parcel SET commitment = ? WHERE id = ?", (transaction_uid, delivery_id))


def apply_commitment_report(
    connection: sqlite3.Connection, transaction_uid: str, *, committed: Iterable[str], failed: Iterable[str]
) -> bool:
    """Apply a storage commitment report; False if no delivery waits for it (any more)."""
    with transaction(connection):
        row = connection.execute("SELECT id FROM parcel WHERE commitment = ?", (transaction_uid,)).fetchone()
        if row is None:
            return False
        _set_within(connection, row["id"], committed, "proven")
        _set_within(
            connection,
            row["id"],
            failed,
            "pending",
            "the target reported that it does not keep it (storage commitment)",
        )
        _complete(connection, row["id"], True)
    return True


def retry(connection: sqlite3.Connection, delivery_id: int) -> None:
    """Make a dead or pending delivery due at once, with its attempts counted from 0, and its target with it.

    Raises UsageError in any other state.
    """
    with transaction(connection):
        tries.reopen(connection, "parcel", delivery_id, "pending")
        connection.execute(
            "UPDATE parcel_object SET state = 'pending' WHERE parcel_id = ? AND state = 'dead'", (delivery_id,)
        )
        _add_event(connection, delivery_id, "sent again by hand")


def discard(connection: sqlite3.Connection, delivery_id: int) -> None:
    """Give up a dead or pending delivery: nothing more of it is sent. Raises UsageError in any other state."""
    with transaction(connection):
        tries.reopen(connection, "parcel", delivery_id, "discarded")
        _mark_objects_dead(connection, delivery_id)
        _add_event(connection, delivery_id, "discarded by hand")
        notify_events.record_if_delivered(connection, _job_and_target(connection, delivery_id)[0])


def withdraw(connection: sqlite3.Connection, study_uid: str, reason: str) -> None:
    """Discard the pending and dead deliveries of a study, whose results are out of date; in the caller's transaction.

    A later delivery takes over the objects that are still valid (`enqueue`).
    """
    rows = connection.execute(
        "SELECT parcel.id FROM job JOIN parcel ON job_id = job.id WHERE study_uid = ?"
        " AND parcel.state IN ('pending', 'dead')",
        (study_uid,),
    ).fetchall()
    for row in rows:
        connection.execute("UPDATE parcel SET state = 'discarded', reason = ? WHERE id = ?", (reason, row["id"]))
        _mark_objects_dead(connection, row["id"])
        _add_event(connection, row["id"], "withdrawn")


_UNPROVEN = ("pending", "sent")
"""States of the objects that a delivery has still to prove."""


def _mark_objects_dead(connection: sqlite3.Connection, delivery_id: int, states: Sequence[str] = _UNPROVEN) -> None:
    marks = ", ".join("?" * len(states))
    connection.execute(
        f"UPDATE parcel_object SET state = 'dead' WHERE parcel_id = ? AND state IN ({marks})", (delivery_id, *states)
    )


def _add_event(connection: sqlite3.Connection, delivery_id: int, what: str) -> None:
    row = connection.execute(
        "SELECT study_uid, target FROM parcel JOIN job ON job.id = job_id WHERE parcel.id = ?", (delivery_id,)
    ).fetchone()
    database.add_event(connection, row["study_uid"], what, row["target"])


def _job_and_target(connection: sqlite3.Connection, delivery_id: int) -> tuple[int, str]:
    row = connection.execute("SELECT job_id, target FROM parcel WHERE id = ?", (delivery_id,)).fetchone()
    return row["job_id"], row["target"]


def undelivered(connection: sqlite3.Connection, target: str) -> list[sqlite3.Row]:
    """Pending and dead deliveries for a target, in order of arrival: id, target, study_uid, pseudonym."""
    return connection.execute(
        "SELECT parcel.id, target, study_uid, pseudonym FROM parcel JOIN job ON job.id = job_id"
        " JOIN study USING (study_uid) WHERE target = ? AND parcel.state IN ('pending', 'dead') ORDER BY parcel.id",
        (target,),
    ).fetchall()


def unconfigured_targets(connection: sqlite3.Connection, targets: Collection[str]) -> dict[str, int]:
    """Targets that are not in `targets` -> number of their pending deliveries, which no process sends."""
    rows = connection.execute("SELECT target, count(*) FROM parcel WHERE state = 'pending' GROUP BY target")
    return {name: count for name, count in rows if name not in targets}

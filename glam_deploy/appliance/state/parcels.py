"""Parcels: a job's results on their way to a target. Every transition of `parcel` and `parcel_object`.

parcel   pending -> delivered              every object of it is proven, or sent where no proof is asked for
         pending -> dead -> pending        attempts exhausted; `retry` by a person
         dead -> discarded                 `discard` by a person
object   pending -> sent -> proven         sent -> pending where the target does not show it
         pending, sent -> dead -> pending  with its parcel
"""

import sqlite3
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from glam_deploy.appliance.state.database import transaction


@dataclass(frozen=True, kw_only=True)
class ResultObject:
    """One DICOM object that a job made."""

    sop_uid: str
    sop_class: str
    path: str
    """Relative to the data folder."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A parcel that waits to be sent."""

    id: int
    study_uid: str
    pseudonym: str
    """What logs call the study."""
    attempts: int


def enqueue(
    connection: sqlite3.Connection, job_id: int, targets: Collection[str], objects: Sequence[ResultObject]
) -> None:
    """One parcel a target with those of `objects` that are not on their way there; inside the caller's transaction.

    An object that belongs to an earlier parcel stays with it, unless that parcel is dead or discarded: then it moves
    into this one. A job that has a parcel for a target already gets no second one.
    """
    for target in targets:
        made = connection.execute(
            "INSERT OR IGNORE INTO parcel (job_id, target, state, created_at) VALUES (?, ?, 'pending', ?)",
            (job_id, target, time.time()),
        )
        if made.rowcount:
            _add_objects(connection, made.lastrowid, target, objects)


def _add_objects(
    connection: sqlite3.Connection, parcel_id: int | None, target: str, objects: Sequence[ResultObject]
) -> None:
    connection.executemany(
        "INSERT INTO parcel_object (target, sop_uid, parcel_id, sop_class, path, state)"
        " VALUES (?, ?, ?, ?, ?, 'pending') ON CONFLICT DO UPDATE SET parcel_id = excluded.parcel_id,"
        " path = excluded.path, state = 'pending', reason = NULL WHERE state = 'dead'",
        [(target, each.sop_uid, parcel_id, each.sop_class, each.path) for each in objects],
    )


def retry(connection: sqlite3.Connection, parcel_id: int) -> None:
    """A dead parcel is tried again from the start, at once. Raises UsageError where it is not dead."""
    with transaction(connection):
        _revive(connection, parcel_id, "pending")
        connection.execute(
            "UPDATE parcel_object SET state = 'pending', reason = NULL WHERE parcel_id = ? AND state = 'dead'",
            (parcel_id,),
        )


def discard(connection: sqlite3.Connection, parcel_id: int) -> None:
    """A person gives a dead parcel up: nothing more is sent of it. Raises UsageError where it is not dead."""
    with transaction(connection):
        _revive(connection, parcel_id, "discarded")


def _revive(connection: sqlite3.Connection, parcel_id: int, state: str) -> None:
    raise NotImplementedError

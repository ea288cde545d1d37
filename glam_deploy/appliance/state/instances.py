"""Instances that have come, and how each changes its study; the caller holds a `transaction`."""

import sqlite3
import time
from dataclasses import asdict, dataclass, replace

from glam_deploy.appliance.state.events import note


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A row of `instance`; see schema.sql."""

    sop_uid: str
    study_uid: str
    series_uid: str
    sop_class: str
    transfer_syntax: str
    sha256: str
    """Of the data set as received, without the head of the file: the same whichever way it came."""
    bytes: int
    """Of that data set."""
    sender: str
    state: str
    view: str | None
    reason: str | None
    is_mammogram: bool
    path: str = ""
    """Relative to the data folder; the spool gives it."""


def known_sha256(connection: sqlite3.Connection, sop_uid: str) -> str | None:
    """The digest of the instance that has this UID; None where there is none."""
    row = connection.execute("SELECT sha256 FROM instance WHERE sop_uid = ?", (sop_uid,)).fetchone()
    return None if row is None else str(row["sha256"])


def add(connection: sqlite3.Connection, instance: Instance, *, pseudonym: str, now: float) -> None:
    """A new instance and its study, which a mammogram opens again; `now` in steady time, `pseudonym` of the study."""
    if _is_own_result(connection, instance.sop_uid):
        instance = replace(instance, state="skipped", view=None, reason="a result of this appliance came back")
    _touch_study(connection, instance, pseudonym, now)
    columns = asdict(instance) | {"received_at": time.time()}
    names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    connection.execute(f"INSERT INTO instance ({names}) VALUES ({marks})", columns)
    told = (instance.state, instance.view, instance.reason and f"({instance.reason})", f"from {instance.sender}")
    note(connection, instance.study_uid, "received", " ".join(filter(None, told)))


def add_to_quarantine(connection: sqlite3.Connection, instance: Instance, *, reason: str) -> None:
    """Other bytes under a UID that is taken; `instance.path` is where they lie. Once, however often they are sent."""
    connection.execute(
        "INSERT OR IGNORE INTO quarantine (sop_uid, sha256, path, sender, received_at, reason) "
        "VALUES (:sop_uid, :sha256, :path, :sender, :received_at, :reason)",
        asdict(instance) | {"received_at": time.time(), "reason": reason},
    )


def _touch_study(connection: sqlite3.Connection, instance: Instance, pseudonym: str, now: float) -> None:
    """Only mammograms count for when a study is complete: a hundred other objects must not hold it up."""
    facts = {"study": instance.study_uid, "pseudonym": pseudonym, "now": now, "at": time.time()}
    connection.execute(
        "INSERT OR IGNORE INTO study (study_uid, pseudonym, state, opened, touched, opened_at, touched_at) "
        "VALUES (:study, :pseudonym, 'receiving', :now, :now, :at, :at)",
        facts,
    )
    if instance.is_mammogram:
        connection.execute(
            "UPDATE study SET touched = :now, touched_at = :at, "
            "opened = CASE state WHEN 'receiving' THEN opened ELSE :now END, "
            "opened_at = CASE state WHEN 'receiving' THEN opened_at ELSE :at END, "
            "state = 'receiving', reason = NULL WHERE study_uid = :study",
            facts,
        )


def _is_own_result(connection: sqlite3.Connection, sop_uid: str) -> bool:
    """Whether this appliance has made it: a target that sends on what it gets must not start a loop."""
    row = connection.execute("SELECT 1 FROM parcel_object WHERE sop_uid = ? LIMIT 1", (sop_uid,)).fetchone()
    return row is not None

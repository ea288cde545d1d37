"""Rejected images: recorded from rejection notes, and left out of every later job.

A note may arrive before the images that it names. A note that says more than that a retention time has passed reopens
the study, whose next job is on the images that are left.
"""

import sqlite3
import time
from dataclasses import dataclass

from glam_deploy.appliance.state.database import add_event

NOT_REJECTED = (
    "NOT EXISTS (SELECT 1 FROM rejection WHERE rejection.study_uid = instance.study_uid"
    " AND rejection.sop_uid = instance.sop_uid)"
)
"""SQL condition on a row of `instance`."""


@dataclass(frozen=True, kw_only=True)
class RejectionNote:
    """A rejection note, with valid UIDs."""

    code: str
    meaning: str
    document: str
    """SOP Instance UID of the note."""
    study_uid: str
    images: tuple[str, ...]


def record(connection: sqlite3.Connection, note: RejectionNote) -> int:
    """Record a note; how many mammograms that were received does it reject. In the caller's transaction."""
    connection.executemany(
        "INSERT OR REPLACE INTO rejection (sop_uid, study_uid, code, document, received_at) VALUES (?, ?, ?, ?, ?)",
        [(uid, note.study_uid, note.code, note.document, time.time()) for uid in note.images],
    )
    rows = connection.execute(
        f"SELECT view FROM instance WHERE study_uid = ? AND is_mammogram AND NOT {NOT_REJECTED}"
        " AND sop_uid IN (SELECT sop_uid FROM rejection WHERE document = ? AND study_uid = ?) ORDER BY arrival",
        (note.study_uid, note.document, note.study_uid),
    ).fetchall()
    views = ", ".join(row["view"] or "an image" for row in rows) or "no mammogram that was received"
    add_event(connection, note.study_uid, "rejected", f"{views}: {note.meaning} ({note.code}, DCM)")
    return len(rows)


def is_rejected(connection: sqlite3.Connection, study_uid: str, sop_uid: str) -> bool:
    """Whether an image of a study is rejected."""
    query = "SELECT 1 FROM rejection WHERE study_uid = ? AND sop_uid = ?"
    return connection.execute(query, (study_uid, sop_uid)).fetchone() is not None


def mammograms_left(connection: sqlite3.Connection, study_uid: str) -> int:
    """Number of mammograms of a study that are not rejected."""
    query = f"SELECT count(*) FROM instance WHERE study_uid = ? AND is_mammogram AND {NOT_REJECTED}"
    return int(connection.execute(query, (study_uid,)).fetchone()[0])


def stale_targets(connection: sqlite3.Connection, study_uid: str) -> list[str]:
    """Targets to which results of a study were delivered."""
    rows = connection.execute(
        "SELECT DISTINCT target FROM parcel JOIN job ON job.id = job_id WHERE study_uid = ?"
        " AND parcel.state = 'delivered' ORDER BY target",
        (study_uid,),
    )
    return [row["target"] for row in rows]

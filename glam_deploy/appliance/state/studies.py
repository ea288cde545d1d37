"""Studies: when one is complete. The transitions of `study` that the keeper makes; receiving makes the others.

receiving -> assembled   complete, and there is a job on its mammograms
receiving -> ignored     complete, and there was no mammogram in it
assembled, ignored -> receiving   another mammogram came (ingest)
"""

import sqlite3
from dataclasses import dataclass

from glam_deploy.appliance.config import Assemble
from glam_deploy.appliance.state import jobs
from glam_deploy.appliance.state.database import transaction
from glam_deploy.appliance.state.events import note
from glam_deploy.records import View

_RECEIVING = (
    "SELECT study_uid, opened, touched, (SELECT count(DISTINCT view) FROM instance"
    " WHERE instance.study_uid = study.study_uid AND state = 'candidate') AS views"
    " FROM study WHERE state = 'receiving'"
)


def assemble_complete(connection: sqlite3.Connection, rules: Assemble, now: float) -> int:
    """Assemble every study that is complete at steady time `now`; how many."""
    complete = [row["study_uid"] for row in connection.execute(_RECEIVING) if _complete(row, rules, now)]
    for study_uid in complete:
        with transaction(connection):
            _assemble(connection, study_uid, rules, now)
    return len(complete)


def _assemble(connection: sqlite3.Connection, study_uid: str, rules: Assemble, now: float) -> None:
    row = connection.execute(f"{_RECEIVING} AND study_uid = ?", (study_uid,)).fetchone()
    # an instance may have come meanwhile
    reason = row and _complete(row, rules, now)
    if not reason:
        return
    mammograms, count = connection.execute(
        "SELECT coalesce(sum(is_mammogram), 0), count(*) FROM instance WHERE study_uid = ?", (study_uid,)
    ).fetchone()
    state, detail = "assembled", reason
    if not mammograms:
        state, detail = "ignored", f"no mammogram among {count} instance{'s' * (count != 1)}"
    else:
        jobs.open_job(connection, study_uid)
    connection.execute(
        "UPDATE study SET state = ?, reason = ?, settled = NULL WHERE study_uid = ?", (state, detail, study_uid)
    )
    note(connection, study_uid, state, detail)


def _complete(row: sqlite3.Row, rules: Assemble, now: float) -> str | None:
    """Why a study is complete; None while it is not."""
    if rules.four_views and row["views"] == len(View):
        return "all four views"
    if now - row["touched"] >= rules.quiet_s:
        return f"nothing came for {rules.quiet_s:g} s"
    if now - row["opened"] >= rules.cap_s:
        return f"open for {rules.cap_s:g} s"
    return None


_OPEN = (
    "EXISTS (SELECT 1 FROM job WHERE job.study_uid = study.study_uid AND job.state IN ('ready', 'running', 'dead'))"
    " OR EXISTS (SELECT 1 FROM job JOIN parcel ON parcel.job_id = job.id WHERE job.study_uid = study.study_uid"
    " AND parcel.state IN ('pending', 'dead'))"
)
"""Whether something of a study is left to do, or for a person to decide."""


def settle(connection: sqlite3.Connection, now: float) -> None:
    """Write down, at steady time `now`, of which studies nothing is left to do; the retention counts from there."""
    connection.execute(
        f"UPDATE study SET settled = ? WHERE settled IS NULL AND state != 'receiving' AND NOT ({_OPEN})", (now,)
    )


def settled_before(connection: sqlite3.Connection, moment: float) -> list[str]:
    """UIDs of the studies of which nothing is left to do since before steady time `moment`, oldest first."""
    rows = connection.execute(
        f"SELECT study_uid FROM study WHERE settled <= ? AND state != 'receiving' AND NOT ({_OPEN}) ORDER BY settled",
        (moment,),
    )
    return [row["study_uid"] for row in rows]


@dataclass(frozen=True, kw_only=True)
class Files:
    """What lies in the data folder because of one study; paths relative to it."""

    instances: tuple[str, ...]
    quarantined: tuple[str, ...]
    view_folders: tuple[str, ...]
    job_keys: tuple[str, ...]


def files(connection: sqlite3.Connection, study_uid: str) -> Files:
    """Of every instance and job that the study ever had."""

    def column(query: str) -> tuple[str, ...]:
        return tuple(row[0] for row in connection.execute(query, (study_uid,)))

    return Files(
        instances=column("SELECT path FROM instance WHERE study_uid = ?"),
        quarantined=column("SELECT q.path FROM quarantine AS q JOIN instance USING (sop_uid) WHERE study_uid = ?"),
        view_folders=column(
            "SELECT DISTINCT folder FROM job JOIN job_view ON job_id = job.id"
            " WHERE study_uid = ? AND folder IS NOT NULL"
        ),
        job_keys=column("SELECT key FROM job WHERE study_uid = ?"),
    )


def forget(connection: sqlite3.Connection, study_uid: str) -> None:
    """Remove every row of a study; inside the caller's transaction. What comes of it afterwards is a new study."""
    jobs_of = "(SELECT id FROM job WHERE study_uid = ?)"
    for statement in (
        f"DELETE FROM parcel_object WHERE parcel_id IN (SELECT id FROM parcel WHERE job_id IN {jobs_of})",
        f"DELETE FROM parcel WHERE job_id IN {jobs_of}",
        f"DELETE FROM job_view WHERE job_id IN {jobs_of}",
        "UPDATE job SET predecessor = NULL WHERE study_uid = ?",
        "DELETE FROM job WHERE study_uid = ?",
        "DELETE FROM event WHERE study_uid = ?",
        "DELETE FROM quarantine WHERE sop_uid IN (SELECT sop_uid FROM instance WHERE study_uid = ?)",
        "DELETE FROM instance WHERE study_uid = ?",
        "DELETE FROM study WHERE study_uid = ?",
    ):
        connection.execute(statement, (study_uid,))

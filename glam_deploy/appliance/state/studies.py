"""Studies: when one is complete. The transitions of `study` that the keeper makes; receiving makes the others.

receiving -> assembled   complete, and there is a job on its mammograms
receiving -> ignored     complete, and there was no mammogram in it
assembled, ignored -> receiving   another mammogram came (ingest)
"""

import sqlite3

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
    connection.execute("UPDATE study SET state = ?, reason = ? WHERE study_uid = ?", (state, detail, study_uid))
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

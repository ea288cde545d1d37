"""Studies and their instances: reception, completeness, expiry.

receiving -> assembled   complete: a job on its mammograms was created (keeper)
receiving -> ignored     complete, without any mammogram (keeper)
assembled, ignored -> receiving   another mammogram arrived (`add_instance`)
"""

import sqlite3
import time
from dataclasses import asdict, dataclass, replace

from glam_deploy.appliance.config import Assemble
from glam_deploy.appliance.state import deliveries, jobs, notifications, notify_events, rejections
from glam_deploy.appliance.state.database import add_event, transaction
from glam_deploy.appliance.state.priority import Priority
from glam_deploy.appliance.state.rejections import NOT_REJECTED, RejectionNote
from glam_deploy.records import View

_FETCH = (
    f"(SELECT fetch.state FROM fetch WHERE priority = {Priority.FETCHED:d} AND kind = 'study' AND name = pseudonym)"
)
"""SQL: the state in which the fetcher has a study that nobody else has sent; null for all others."""
_RECEIVING = (
    f"SELECT study_uid, opened, touched, {_FETCH} AS fetch, (SELECT count(DISTINCT view) FROM instance"
    f" WHERE instance.study_uid = study.study_uid AND +state = 'candidate' AND {NOT_REJECTED}) AS views"
    " FROM study WHERE state = 'receiving'"
)


def assemble_complete(connection: sqlite3.Connection, rules: Assemble, now: float) -> int:
    """Assemble every study that is complete at monotonic time `now`; how many."""
    complete = [row["study_uid"] for row in connection.execute(_RECEIVING) if _complete(row, rules, now)]
    for study_uid in complete:
        with transaction(connection):
            _assemble(connection, study_uid, rules, now)
    return len(complete)


def _assemble(connection: sqlite3.Connection, study_uid: str, rules: Assemble, now: float) -> None:
    row = connection.execute(f"{_RECEIVING} AND study_uid = ?", (study_uid,)).fetchone()
    # an instance may have arrived meanwhile
    reason = row and _complete(row, rules, now)
    if not reason:
        return
    state, detail = "assembled", reason
    if rejections.mammograms_left(connection, study_uid):
        jobs.create_job(connection, study_uid)
    else:
        state, detail = "ignored", _why_ignored(connection, study_uid)
    connection.execute(
        "UPDATE study SET state = ?, reason = ?, settled = NULL WHERE study_uid = ?", (state, detail, study_uid)
    )
    add_event(connection, study_uid, state, detail)


def _why_ignored(connection: sqlite3.Connection, study_uid: str) -> str:
    """The reason why a study has nothing to process."""
    mammograms, count = connection.execute(
        "SELECT coalesce(sum(is_mammogram), 0), count(*) FROM instance WHERE study_uid = ?", (study_uid,)
    ).fetchone()
    if not mammograms:
        return f"no mammogram among {count} instance{'s' * (count != 1)}"
    delivered = ", ".join(rejections.stale_targets(connection, study_uid))
    stale = f"; results of them were delivered to {delivered}: reject or delete them there" if delivered else ""
    return f"all of its mammograms are rejected{stale}"


def _complete(row: sqlite3.Row, rules: Assemble, now: float) -> str | None:
    """The reason why a study is complete; None if it is not. Of one that is fetched, the fetcher knows all images."""
    if row["fetch"] == "fetched":
        return "fetched from the archive"
    if row["fetch"] not in ("wanted", "fetching"):
        if rules.four_views and row["views"] == len(View):
            return "all four views"
        if now - row["touched"] >= rules.quiet_s:
            return f"nothing arrived for {rules.quiet_s:g} s"
    if now - row["opened"] >= rules.cap_s:
        return f"open for {rules.cap_s:g} s"
    return None


_OPEN = (
    "EXISTS (SELECT 1 FROM job WHERE job.study_uid = study.study_uid AND job.state IN ('ready', 'running', 'dead'))"
    " OR EXISTS (SELECT 1 FROM job JOIN parcel ON parcel.job_id = job.id WHERE job.study_uid = study.study_uid"
    " AND parcel.state IN ('pending', 'dead'))"
    f" OR EXISTS ({notifications.OPEN_OF_STUDY})"
)
"""SQL condition: the study has unfinished jobs, deliveries or notifications, or dead ones that need a decision."""


def mark_finished(connection: sqlite3.Connection, now: float) -> None:
    """Record at monotonic time `now` which studies have nothing left to do; the retention time starts there."""
    connection.execute(
        f"UPDATE study SET settled = ? WHERE settled IS NULL AND state != 'receiving' AND NOT ({_OPEN})", (now,)
    )


def finished_before(connection: sqlite3.Connection, moment: float) -> list[str]:
    """UIDs of studies that have had nothing left to do since before monotonic time `moment`, oldest first."""
    rows = connection.execute(
        f"SELECT study_uid FROM study WHERE settled <= ? AND state != 'receiving' AND NOT ({_OPEN}) ORDER BY settled",
        (moment,),
    )
    return [row["study_uid"] for row in rows]


@dataclass(frozen=True, kw_only=True)
class StudyFiles:
    """Files and folders of one study in the data folder; paths relative to it."""

    instances: tuple[str, ...]
    quarantined: tuple[str, ...]
    view_folders: tuple[str, ...]
    job_keys: tuple[str, ...]


def study_files(connection: sqlite3.Connection, study_uid: str) -> StudyFiles:
    """The files and folders of every instance and job that the study ever had."""

    def column(query: str) -> tuple[str, ...]:
        return tuple(row[0] for row in connection.execute(query, (study_uid,)))

    return StudyFiles(
        instances=column("SELECT path FROM instance WHERE study_uid = ?"),
        quarantined=column("SELECT q.path FROM quarantine AS q JOIN instance USING (sop_uid) WHERE study_uid = ?"),
        view_folders=column(
            "SELECT DISTINCT folder FROM job JOIN job_view ON job_id = job.id"
            " WHERE study_uid = ? AND folder IS NOT NULL"
        ),
        job_keys=column("SELECT key FROM job WHERE study_uid = ?"),
    )


def delete_study(connection: sqlite3.Connection, study_uid: str) -> None:
    """Delete every row of a study, in the caller's transaction. A later instance of it starts a new study."""
    jobs_of = "(SELECT id FROM job WHERE study_uid = ?)"
    for statement in (
        f"DELETE FROM notification WHERE event_id IN (SELECT id FROM notify_event WHERE job_id IN {jobs_of})",
        f"DELETE FROM notify_event WHERE job_id IN {jobs_of}",
        f"DELETE FROM parcel_object WHERE parcel_id IN (SELECT id FROM parcel WHERE job_id IN {jobs_of})",
        f"DELETE FROM parcel WHERE job_id IN {jobs_of}",
        f"DELETE FROM job_view WHERE job_id IN {jobs_of}",
        "UPDATE job SET predecessor = NULL WHERE study_uid = ?",
        "DELETE FROM job WHERE study_uid = ?",
        "DELETE FROM event WHERE study_uid = ?",
        "DELETE FROM quarantine WHERE sop_uid IN (SELECT sop_uid FROM instance WHERE study_uid = ?)",
        "DELETE FROM rejection WHERE study_uid = ?",
        "DELETE FROM instance WHERE study_uid = ?",
        "DELETE FROM study WHERE study_uid = ?",
    ):
        connection.execute(statement, (study_uid,))


OTHER_PATIENT = "its Patient ID, or the issuer, differs from that of another object of the study"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A row of table `instance` (schema.sql)."""

    sop_uid: str
    study_uid: str
    series_uid: str
    sop_class: str
    transfer_syntax: str
    sha256: str
    """SHA-256 of the data set as received, without preamble and file meta information: equal for every transport."""
    bytes: int
    """Size of that data set."""
    sender: str
    state: str
    view: str | None
    reason: str | None
    is_mammogram: bool
    path: str = ""
    """Relative to the data folder; set by the spool."""
    patient: str | None = None
    """Pseudonym of the patient's identifiers."""


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """The stored version of an instance, and what has become of it."""

    sop_uid: str
    study_uid: str
    sop_class: str
    sha256: str
    path: str
    sender: str
    received_at: float
    state: str
    reason: str | None
    is_mammogram: bool
    outcome: str | None
    """Outcome of its view in the latest job that had one."""
    view_reason: str | None

    @property
    def without_result(self) -> str:
        """Why it can give no result; "" if it may."""
        if self.state != "candidate":
            return self.reason or self.state
        return self.view_reason or self.outcome if self.outcome in ("failed", "skipped") else ""


def stored_version(connection: sqlite3.Connection, sop_uid: str) -> StoredVersion | None:
    """The stored instance with this UID; None if there is none."""
    row = connection.execute(
        "SELECT i.sop_uid, i.study_uid, sop_class, sha256, path, sender, received_at, i.state, i.reason, is_mammogram,"
        " v.outcome, v.reason AS view_reason FROM instance AS i LEFT JOIN job_view AS v ON v.sop_uid = i.sop_uid"
        f" AND v.job_id = {jobs.LATEST.format('i')} WHERE i.sop_uid = ?",
        (sop_uid,),
    ).fetchone()
    return row and StoredVersion(**dict(row))


def is_here(connection: sqlite3.Connection, sop_uid: str, *, usable: bool = False) -> bool:
    """Whether an instance was received; with `usable`, and was not refused."""
    row = connection.execute("SELECT state FROM instance WHERE sop_uid = ?", (sop_uid,)).fetchone()
    return row is not None and not (usable and row["state"] == "refused")


def add_instance(
    connection: sqlite3.Connection,
    instance: Instance,
    *,
    pseudonym: str,
    now: float,
    priority: Priority = Priority.LIVE,
) -> None:
    """Add an instance, and its study if it is new; a mammogram reopens the study. In the caller's transaction.

    `now`: monotonic time. `pseudonym`: that of the study. `priority`: that of a new study.
    """
    if _is_own_result(connection, instance.sop_uid):
        instance = replace(
            instance, state="skipped", view=None, reason="a result object of this appliance, received back"
        )
    _update_study(connection, instance, pseudonym, now, priority)
    columns = asdict(instance) | {"received_at": time.time()}
    names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    connection.execute(f"INSERT INTO instance ({names}) VALUES ({marks})", columns)
    parts = (instance.state, instance.view, instance.reason and f"({instance.reason})", f"from {instance.sender}")
    add_event(connection, instance.study_uid, "received", " ".join(filter(None, parts)))
    if rejections.is_rejected(connection, instance.study_uid, instance.sop_uid):
        add_event(connection, instance.study_uid, "rejected", f"{instance.view or 'an image'}: before it arrived")


def has_other_patient(connection: sqlite3.Connection, instance: Instance) -> bool:
    """Whether another instance of the study names another patient; then the timeline says so."""
    query = "SELECT 1 FROM instance WHERE study_uid = ? AND patient != ? LIMIT 1"
    if connection.execute(query, (instance.study_uid, instance.patient)).fetchone() is None:
        return False
    add_event(connection, instance.study_uid, "patient differs", f"{instance.view or 'an object'}: {OTHER_PATIENT}")
    return True


def add_quarantined(connection: sqlite3.Connection, instance: Instance, *, reason: str) -> None:
    """Record an object whose UID is already taken by other bytes, once however often it is sent.

    `instance.path`: where the quarantined file is. In the caller's transaction.
    """
    added = connection.execute(
        "INSERT OR IGNORE INTO quarantine (sop_uid, sha256, path, sender, received_at, reason) "
        "VALUES (:sop_uid, :sha256, :path, :sender, :received_at, :reason)",
        asdict(instance) | {"received_at": time.time(), "reason": reason},
    )
    stored = stored_version(connection, instance.sop_uid)
    if added.rowcount and stored:
        add_event(connection, stored.study_uid, "conflict", f"another version from {instance.sender}: {reason}")


def note_same_image(connection: sqlite3.Connection, instance: Instance) -> None:
    """Record that the stored image arrived in another encoding, which is not kept, once for each view and sender.

    In the caller's transaction.
    """
    event = "same image", f"{instance.view or 'an image'}: in another encoding, from {instance.sender}"
    known = connection.execute(
        "SELECT 1 FROM event WHERE study_uid = ? AND what = ? AND detail = ?", (instance.study_uid, *event)
    ).fetchone()
    if known is None:
        add_event(connection, instance.study_uid, *event)


def quarantined_version(connection: sqlite3.Connection, number: int) -> sqlite3.Row | None:
    """The row of `quarantine` with this id; None if there is none."""
    row: sqlite3.Row | None = connection.execute("SELECT * FROM quarantine WHERE id = ?", (number,)).fetchone()
    return row


def replace_instance(
    connection: sqlite3.Connection, stored: StoredVersion, instance: Instance, *, kept: str, reason: str, now: float
) -> None:
    """Put `instance` in the place of the version `stored`, whose file is now at `kept` in the quarantine.

    The study is reopened. Unfinished jobs are superseded and results that were not delivered are withdrawn, because
    they are of the version before. In the caller's transaction. `reason`: why, without identifiers.
    """
    columns = asdict(instance) | {"received_at": time.time()}
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    connection.execute(f"UPDATE instance SET {assignments} WHERE sop_uid = :sop_uid", columns)
    connection.execute("DELETE FROM quarantine WHERE sop_uid = ? AND sha256 = ?", (instance.sop_uid, instance.sha256))
    connection.execute(
        "INSERT OR REPLACE INTO quarantine (sop_uid, sha256, path, sender, received_at, reason, replaced)"
        " VALUES (?, ?, ?, ?, ?, ?, 1)",
        (stored.sop_uid, stored.sha256, kept, stored.sender, stored.received_at, f"replaced: {reason}"),
    )
    # a failure of the version before is no failure of this one
    connection.execute(
        "UPDATE job_view SET outcome = NULL, reason = 'replaced by a later version' WHERE sop_uid = ?"
        " AND outcome IN ('failed', 'skipped')",
        (instance.sop_uid,),
    )
    withdraw_results(connection, instance.study_uid, "a version of an image was replaced")
    _reopen(connection, instance.study_uid, now)
    add_event(connection, instance.study_uid, "replaced", f"{instance.view or 'an image'}: {reason}")


def apply_rejection(connection: sqlite3.Connection, note: RejectionNote, *, expired: bool, now: float) -> int:
    """Apply a rejection note to its study; how many mammograms that were received does it reject.

    `expired`: nothing was wrong with the images, the archive has deleted them; then results stay valid, but those that
    wait for delivery are withdrawn when no image of the study is left. In the caller's transaction.
    """
    rejected = rejections.record(connection, note)
    if rejected and not (expired and rejections.mammograms_left(connection, note.study_uid)):
        withdraw_results(connection, note.study_uid, f"{note.meaning} ({note.code}, DCM)")
    if rejected and not expired:
        _reopen(connection, note.study_uid, now)
    return rejected


def withdraw_results(connection: sqlite3.Connection, study_uid: str, reason: str) -> None:
    """Supersede the study's unfinished jobs and withdraw undelivered results. In the caller's transaction."""
    notify_events.record_withdrawn(connection, study_uid, reason)
    jobs.supersede(connection, study_uid, reason)
    deliveries.withdraw(connection, study_uid, reason)


def _update_study(
    connection: sqlite3.Connection, instance: Instance, pseudonym: str, now: float, priority: Priority
) -> None:
    """Create the study if missing; a mammogram reopens it. Other objects do not delay its completeness."""
    facts = {"study": instance.study_uid, "pseudonym": pseudonym, "now": now, "at": time.time()}
    facts["priority"] = priority
    connection.execute(
        "INSERT OR IGNORE INTO study (study_uid, pseudonym, state, opened, touched, opened_at, touched_at, priority) "
        "VALUES (:study, :pseudonym, 'receiving', :now, :now, :at, :at, :priority)",
        facts,
    )
    if instance.is_mammogram:
        _reopen(connection, instance.study_uid, now)


def _reopen(connection: sqlite3.Connection, study_uid: str, now: float) -> None:
    """Let the study wait for further images before it is assembled (again)."""
    connection.execute(
        "UPDATE study SET touched = :now, touched_at = :at, "
        "opened = CASE state WHEN 'receiving' THEN opened ELSE :now END, "
        "opened_at = CASE state WHEN 'receiving' THEN opened_at ELSE :at END, "
        "state = 'receiving', reason = NULL WHERE study_uid = :study",
        {"study": study_uid, "now": now, "at": time.time()},
    )


def _is_own_result(connection: sqlite3.Connection, sop_uid: str) -> bool:
    """Whether this appliance made the object: a target that forwards what it receives must not cause a loop."""
    row = connection.execute("SELECT 1 FROM parcel_object WHERE sop_uid = ? LIMIT 1", (sop_uid,)).fetchone()
    return row is not None

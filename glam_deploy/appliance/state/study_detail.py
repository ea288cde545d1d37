"""Queries of the status page and of `queue` about studies: lists, one study in detail, failures.

Reads only, through indices. A study is named by its pseudonym; its UID appears only in its own detail.
"""

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glam_deploy.appliance.state import notifications
from glam_deploy.appliance.state.delivery_parts import DeliveryPart, parts_of_study
from glam_deploy.appliance.state.jobs import LATEST
from glam_deploy.appliance.state.overview import FAILED_VIEWS
from glam_deploy.appliance.state.priority import Priority
from glam_deploy.appliance.state.without_result import WITHOUT_RESULT
from glam_deploy.dicom.uids import is_uid

PAGE = 50
"""Studies, or failures, on one page."""

_MOST_EVENTS = 1000

Row = sqlite3.Row


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """A study as one line of a list."""

    pseudonym: str
    stage: str
    """One of `overview.STAGES`, "delivered", "superseded" or "discarded"."""
    opened_at: float
    """When its first instance after the last assembly arrived."""
    touched_at: float
    """When its last mammogram arrived."""
    first_received_at: float
    """When its first instance arrived."""
    lost: int
    """Images without a result: views of the latest job that failed or were skipped (`WITHOUT_RESULT`), and instances
    that were refused.
    """
    instances: int
    views: str
    """Views of its candidates, each once: "L-CC, R-CC"."""
    priority: str
    """"STAT" or "fetched"; "" for any other."""
    reason: str | None
    """Of its job, else of a delivery or notification that is dead or pending, else of the target or receiver that it
    waits for, else of its assembly.
    """
    reason_of: str | None
    """What the reason is of: "job", "delivery" (or notification), "assembly"; None without a reason."""


_OPEN_NOTIFICATIONS = (
    "job k JOIN notify_event e ON e.job_id = k.id JOIN notification n ON n.event_id = e.id"
    " WHERE k.study_uid = s.study_uid AND n.state IN ('dead', 'pending')"
)
_DOWN = (
    "SELECT substr(c.name, 8) || ': ' || json_extract(c.detail, '$.reason') FROM component c WHERE c.state != 'ready'"
    " AND c.name IN (SELECT 'target:' || target FROM parcel WHERE job_id = j.id AND state = 'pending'"
    f" UNION SELECT 'target:' || n.target FROM {_OPEN_NOTIFICATIONS} AND n.state = 'pending') ORDER BY c.name LIMIT 1"
)
"""SQL: why a target or receiver that results or messages of the study wait for is not ready, by its last heartbeat
(`target:NAME`).
"""
_LINES = f"""
    SELECT s.pseudonym, s.state AS study_state, s.opened_at, s.touched_at, s.reason AS study_reason, s.priority,
        (SELECT count(*) FROM instance WHERE study_uid = s.study_uid) AS instances,
        (SELECT received_at FROM instance WHERE study_uid = s.study_uid ORDER BY arrival LIMIT 1) AS first_received_at,
        (SELECT count(*) FROM instance WHERE study_uid = s.study_uid AND state = 'refused')
            + (SELECT count(*) FROM job_view v JOIN instance i ON i.sop_uid = v.sop_uid
               WHERE v.job_id = j.id AND i.state != 'refused' AND {WITHOUT_RESULT}) AS lost,
        (SELECT group_concat(DISTINCT iif(state = 'candidate', view, NULL)) FROM instance
            WHERE study_uid = s.study_uid) AS views,
        j.state AS job_state, j.reason AS job_reason,
        (SELECT group_concat(DISTINCT state) FROM parcel WHERE job_id = j.id) AS parcels,
        (SELECT group_concat(DISTINCT n.state) FROM {_OPEN_NOTIFICATIONS}) AS notifications,
        coalesce((SELECT target || ': ' || reason FROM parcel WHERE job_id = j.id AND state IN ('dead', 'pending')
            AND reason NOT NULL ORDER BY state, id LIMIT 1), (SELECT n.target || ': ' || n.reason
            FROM {_OPEN_NOTIFICATIONS} AND n.reason NOT NULL ORDER BY n.state, n.id LIMIT 1),
            ({_DOWN})) AS parcel_reason
    FROM study s LEFT JOIN job j ON j.id = {LATEST.format("s")}
"""
_ALL = "SELECT rowid FROM study ORDER BY rowid DESC LIMIT ? OFFSET ?"
_OF_STUDIES = "SELECT rowid FROM study WHERE state = ? ORDER BY rowid DESC LIMIT ? OFFSET ?"
_OF_JOBS = (
    "SELECT s.rowid FROM job JOIN study s USING (study_uid) WHERE job.state = ? ORDER BY job.id DESC LIMIT ? OFFSET ?"
)
_OF_PARCELS = (
    "SELECT s.rowid, parcel.created_at FROM parcel JOIN job ON job.id = parcel.job_id JOIN study s USING (study_uid) "
    "WHERE target IN (SELECT DISTINCT target FROM parcel) AND parcel.state = ? ORDER BY parcel.id DESC LIMIT ? OFFSET ?"
)
_OF_NOTIFICATIONS = (
    "SELECT s.rowid, n.created_at FROM notification n JOIN notify_event e ON e.id = n.event_id"
    " JOIN job ON job.id = e.job_id JOIN study s USING (study_uid)"
    " WHERE n.target IN (SELECT DISTINCT target FROM notification) AND n.state = ? ORDER BY n.id DESC LIMIT ? OFFSET ?"
)
_BY_STAGE: Mapping[str, tuple[str, str]] = {
    "receiving": (_OF_STUDIES, "receiving"),
    "waiting": (_OF_JOBS, "ready"),
    "working": (_OF_JOBS, "running"),
    "sending": (_OF_PARCELS, "pending"),
    "failed": (_OF_JOBS, "dead"),
    "undelivered": (_OF_PARCELS, "dead"),
    "done": (_OF_JOBS, "done"),
    "ignored": (_OF_STUDIES, "ignored"),
}


def studies(connection: sqlite3.Connection, stage: str | None = None, page: int = 0) -> list[StudySummary]:
    """`PAGE` studies, newest first: all, or those with something in `stage`; one more if there is a next page."""
    window = (PAGE + 1, page * PAGE)
    if stage is None:
        numbers: Iterable[Row] = connection.execute(_ALL, window)
    elif stage in ("sending", "undelivered"):
        numbers = _sent(connection, _BY_STAGE[stage][1], *window)
    else:
        query, state = _BY_STAGE[stage]
        numbers = connection.execute(query, (state, *window))
    # a study with two such jobs or targets is listed once
    return _lines(connection, list(dict.fromkeys(row[0] for row in numbers)))


def _sent(connection: sqlite3.Connection, state: str, count: int, start: int) -> list[Row]:
    """`count` rows of studies with a delivery or notification in `state`, newest first, without the first `start`."""
    newest = (state, start + count, 0)
    rows = [row for query in (_OF_PARCELS, _OF_NOTIFICATIONS) for row in connection.execute(query, newest)]
    return sorted(rows, key=lambda row: float(row["created_at"]), reverse=True)[start : start + count]


def find_studies(connection: sqlite3.Connection, text: str) -> list[StudySummary]:
    """The study with this Study Instance UID, or those whose pseudonym starts with `text` (4 characters or more)."""
    if is_uid(text) and (row := connection.execute("SELECT rowid FROM study WHERE study_uid = ?", (text,)).fetchone()):
        return _lines(connection, [row[0]])
    if not re.fullmatch(r"[0-9a-f]{4,16}", text):
        return []
    rows = connection.execute(
        "SELECT rowid FROM study WHERE pseudonym >= ? AND pseudonym < ? ORDER BY pseudonym LIMIT ?",
        (text, text + "g", PAGE),
    )
    return _lines(connection, [row[0] for row in rows])


def _lines(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[StudySummary]:
    query = f"{_LINES} WHERE s.rowid = ?"
    return [_line(connection.execute(query, (number,)).fetchone()) for number in numbers]


def _line(row: Row) -> StudySummary:
    reasons = {"job": row["job_reason"], "delivery": row["parcel_reason"], "assembly": row["study_reason"]}
    reason_of = next((what for what, reason in reasons.items() if reason), None)
    return StudySummary(
        pseudonym=row["pseudonym"],
        stage=_stage(
            row["study_state"],
            row["job_state"],
            [*(row["parcels"] or "").split(","), *(row["notifications"] or "").split(",")],
        ),
        opened_at=row["opened_at"],
        touched_at=row["touched_at"],
        first_received_at=row["first_received_at"],
        lost=row["lost"],
        instances=row["instances"],
        views=", ".join(sorted((row["views"] or "").split(","))),
        priority=Priority(row["priority"]).label,
        reason=reasons[reason_of] if reason_of else None,
        reason_of=reason_of,
    )


def _stage(study: str, job: str | None, deliveries: Sequence[str]) -> str:
    """The stage of a study: that of its least advanced part."""
    if study != "assembled" or job is None:
        return "ignored" if study == "ignored" else "receiving"
    if job != "done":
        return {"ready": "waiting", "running": "working", "dead": "failed"}.get(job, job)
    known = {"dead": "undelivered", "pending": "sending", "discarded": "discarded", "delivered": "delivered"}
    return next((stage for state, stage in known.items() if state in deliveries), "done")


@dataclass(frozen=True, kw_only=True)
class StudyDetail:
    """All that is known of one study. Rows have the columns of their tables, and those that the queries add."""

    line: StudySummary
    study_uid: str
    instances: list[Row]
    """Rows of `instance`, with `outcome`, `view_reason`, `folder` and `seconds` of the latest job, and `rejected`, the
    code of the rejection note.
    """
    jobs: list[Row]
    """Rows of `job`, newest first."""
    deliveries: list[Row]
    """Rows of `parcel`, newest first, with `objects` and `arrived`: how many of them the target is known to hold."""
    notifications: list[Row]
    """`notifications.of_study`, newest first."""
    parts: list[DeliveryPart]
    """Objects of the deliveries, by delivery and kind."""
    versions: list[Row]
    """Rows of `quarantine`: other versions of its instances, with their `view`."""
    events: list[Row]


def study_detail(connection: sqlite3.Connection, pseudonym: str) -> StudyDetail | None:
    """The study with this pseudonym; None if there is none."""
    row = connection.execute("SELECT rowid, study_uid FROM study WHERE pseudonym = ?", (pseudonym,)).fetchone()
    if row is None:
        return None
    number, uid = row
    return StudyDetail(
        line=_lines(connection, [number])[0],
        study_uid=uid,
        instances=_all(connection, _INSTANCES + "WHERE i.study_uid = ? ORDER BY i.arrival", uid),
        jobs=_all(connection, "SELECT * FROM job WHERE study_uid = ? ORDER BY id DESC", uid),
        deliveries=_all(connection, _PARCELS, uid),
        notifications=notifications.of_study(connection, uid),
        parts=parts_of_study(connection, uid),
        versions=_all(connection, _VERSIONS, uid),
        events=_all(connection, f"SELECT * FROM event WHERE study_uid = ? ORDER BY id LIMIT {_MOST_EVENTS}", uid),
    )


_INSTANCES = f"""
    SELECT i.*, v.outcome, v.reason AS view_reason, v.folder, v.seconds, r.code AS rejected FROM instance i
    LEFT JOIN rejection r ON r.study_uid = i.study_uid AND r.sop_uid = i.sop_uid
    LEFT JOIN job_view v ON v.sop_uid = i.sop_uid AND v.job_id = {LATEST.format("i")}
"""
_VERSIONS = """
    SELECT q.*, i.view FROM instance i JOIN quarantine q ON q.sop_uid = i.sop_uid WHERE i.study_uid = ? ORDER BY q.id
"""
_PARCELS = """
    SELECT p.*, count(o.sop_uid) AS objects, coalesce(sum(o.state IN ('sent', 'proven')), 0) AS arrived
    FROM job JOIN parcel p ON p.job_id = job.id LEFT JOIN parcel_object o ON o.parcel_id = p.id
    WHERE job.study_uid = ? GROUP BY p.id ORDER BY p.id DESC
"""


def _all(connection: sqlite3.Connection, query: str, *values: Any) -> list[Row]:
    return connection.execute(query, values).fetchall()


@dataclass(frozen=True, kw_only=True)
class ViewFiles:
    """Files of one view for its pictures; paths relative to the data folder."""

    instance: str
    results: str
    """Folder of its results."""


def view_files(connection: sqlite3.Connection, arrival: int) -> ViewFiles | None:
    """Files of the mammogram with this arrival number and its latest results; None if there are none."""
    row = connection.execute(
        "SELECT i.path, v.folder FROM instance i JOIN job USING (study_uid) "
        "JOIN job_view v ON v.job_id = job.id AND v.sop_uid = i.sop_uid "
        "WHERE i.arrival = ? AND v.outcome = 'done' ORDER BY job.id DESC LIMIT 1",
        (arrival,),
    ).fetchone()
    return row and ViewFiles(instance=row["path"], results=row["folder"])


@dataclass(frozen=True, kw_only=True)
class Failures:
    """What needs a person's decision, newest first, at most `PAGE` of each; every row has `pseudonym` and `reason`."""

    jobs: list[Row]
    """id, attempts, finished_at"""
    deliveries: list[Row]
    """id, target, attempts, created_at"""
    notifications: list[Row]
    """id, target, event, attempts, created_at"""
    views: list[Row]
    """view, received_at, job_id; each view once, and none that is among `instances`."""
    instances: list[Row]
    """Refused: sender, received_at"""
    refusals: list[Row]
    """At reception: sender, code, times, last_at; of no study, so `pseudonym` is null."""
    quarantine: list[Row]
    """sender, received_at; of the study of the stored object with the same UID. Replaced versions are not listed."""


def failures(connection: sqlite3.Connection) -> Failures:
    """Everything that failed and has not been resolved."""
    return Failures(**{name: _all(connection, query, PAGE) for name, query in _FAILURES.items()})


_FAILURES: Mapping[str, str] = {
    "jobs": "SELECT s.pseudonym, job.* FROM job JOIN study s USING (study_uid) WHERE job.state = 'dead' "
    "ORDER BY job.id DESC LIMIT ?",
    "deliveries": "SELECT s.pseudonym, p.* FROM parcel p JOIN job ON job.id = p.job_id JOIN study s USING (study_uid) "
    "WHERE p.target IN (SELECT DISTINCT target FROM parcel) AND p.state = 'dead' ORDER BY p.id DESC LIMIT ?",
    "notifications": "SELECT s.pseudonym, e.event, n.* FROM notification n JOIN notify_event e ON e.id = n.event_id "
    "JOIN job ON job.id = e.job_id JOIN study s USING (study_uid) WHERE n.target IN (SELECT DISTINCT target FROM "
    "notification) AND n.state = 'dead' ORDER BY n.id DESC LIMIT ?",
    "views": "SELECT (SELECT pseudonym FROM study WHERE study_uid = i.study_uid) AS pseudonym, i.view, i.arrival, "
    f"v.reason, v.job_id, i.received_at FROM {FAILED_VIEWS} ORDER BY v.job_id DESC LIMIT ?",
    "instances": "SELECT s.pseudonym, i.sender, i.received_at, i.reason FROM instance i JOIN study s USING (study_uid) "
    "WHERE i.state = 'refused' ORDER BY i.arrival DESC LIMIT ?",
    "refusals": "SELECT NULL AS pseudonym, * FROM refusal WHERE sender != '' ORDER BY last_at DESC LIMIT ?",
    "quarantine": "SELECT s.pseudonym, q.sender, q.received_at, q.reason FROM quarantine q "
    "LEFT JOIN instance i USING (sop_uid) LEFT JOIN study s USING (study_uid) WHERE NOT q.replaced "
    "ORDER BY q.id DESC LIMIT ?",
}

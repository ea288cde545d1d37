"""Reads the content of a notification from `state.db` and the files of its study, at each try anew.

What can change after the event is told as it is now: the states of deliveries, and whether the result is superseded. A
notification that is retried late can therefore not bring back a withdrawn result.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import FINDING, OBJECTS, DataFolder, read_json
from glam_deploy.appliance.notify.message import Message, StoredObject, Subject, ViewReport, moment
from glam_deploy.appliance.state.notifications import Notification
from glam_deploy.appliance.state.rejections import NOT_REJECTED
from glam_deploy.appliance.state.without_result import TWIN
from glam_deploy.dicom.read import read_texts
from glam_deploy.errors import DicomError
from glam_deploy.exams import ExamScores, ViewScores, score_exams, triage
from glam_deploy.networks import final_score
from glam_deploy.records import View

_SUBJECT: Mapping[str, str] = {
    "patient_id": "PatientID",
    "patient_issuer": "IssuerOfPatientID",
    "patient_name": "PatientName",
    "birth_date": "PatientBirthDate",
    "sex": "PatientSex",
    "accession_number": "AccessionNumber",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
}
"""Field of `Subject` -> keyword of its element."""

_VIEWS = (
    f"SELECT i.view, i.path, v.outcome, v.reason, v.folder, {TWIN} AS is_twin FROM job_view v"
    " JOIN instance i ON i.sop_uid = v.sop_uid WHERE v.job_id = ? ORDER BY i.arrival"
)
_SUPERSEDED = "SELECT 1 FROM notify_event WHERE job_id = ? AND event = 'superseded'"
_SUCCESSOR = "SELECT key FROM job WHERE predecessor = ? AND state = 'done' ORDER BY id DESC LIMIT 1"
_IMAGES = (
    "SELECT sop_uid, sop_class, series_uid FROM instance WHERE study_uid = ? AND is_mammogram AND state != 'refused'"
    f" AND {NOT_REJECTED} ORDER BY arrival"
)
_ACCEPTED = (
    "SELECT DISTINCT o.sop_uid, o.path FROM job JOIN parcel p ON p.job_id = job.id"
    " JOIN parcel_object o ON o.parcel_id = p.id WHERE job.study_uid = ? AND o.state IN ('sent', 'proven')"
    " ORDER BY o.path"
)
_MODALITIES = {"seg": "SEG", "seg_fractional": "SEG", "sc": "OT", "gsps": "PR", "cad_sr": "SR", "sr": "SR"}


class Composer:
    """Makes the content of notifications of one appliance."""

    def __init__(self, config: Config, data: DataFolder) -> None:
        self._triage_threshold, self._root = config.results.triage_threshold, data.root

    def compose(self, connection: sqlite3.Connection, about: Notification) -> Message:
        """The content of a notification. Files that retention has removed leave scores and identifiers empty."""
        rows = connection.execute(_VIEWS, (about.job_id,)).fetchall()
        images = [self._scores(row) for row in rows]
        done = any(image.scores for image in images)
        threshold = self._triage_threshold
        successor = connection.execute(_SUCCESSOR, (about.job_id,)).fetchone()
        return Message(
            id=about.message_id,
            event=about.event,
            at=moment(about.at),
            reason=about.reason,
            study=about.pseudonym,
            result=about.job_key,
            superseded=connection.execute(_SUPERSEDED, (about.job_id,)).fetchone() is not None,
            superseded_by=successor["key"] if successor else None,
            views=tuple(_report(row, image) for row, image in zip(rows, images, strict=True) if not row["is_twin"]),
            exam=_exam(images) if done else None,
            deliveries=_deliveries(connection, about.job_id),
            triage=None if threshold is None else triage(images, threshold),
            subject=_subject(about.study_uid, [self._root / row["path"] for row in rows]),
            objects=tuple(self._objects(connection, about.study_uid)),
        )

    def _scores(self, row: sqlite3.Row) -> ViewScores:
        summary = _summary(self._root / row["folder"]) if row["folder"] else {}
        return ViewScores(
            exam="",
            view=View(row["view"]) if row["view"] else None,
            status=_status(row, summary),
            scores=summary.get("scores", {}),
            made_by=summary.get("made_by", ""),
            patient=summary.get("patient", {}),
        )

    def _objects(self, connection: sqlite3.Connection, study_uid: str) -> Iterator[StoredObject]:
        for row in connection.execute(_IMAGES, (study_uid,)):
            yield StoredObject(**dict(row), modality="MG")
        for row in connection.execute(_ACCEPTED, (study_uid,)):
            path = self._root / row["path"]
            entry = next((each for each in _entries(path.parent) if each["sop_uid"] == row["sop_uid"]), None)
            if entry:
                yield StoredObject(
                    sop_uid=entry["sop_uid"],
                    sop_class=entry["sop_class"],
                    series_uid=entry["series_uid"],
                    modality=_MODALITIES[PurePath(entry["file"]).stem],
                )


def _status(row: sqlite3.Row, summary: Mapping[str, Any]) -> str:
    """As `ViewReport.outcome`."""
    if row["outcome"] == "done" and not summary:
        return "removed"
    return row["outcome"] or "waiting"


def _summary(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, KeyError):
        found: dict[str, Any] = read_json(folder / FINDING)["summary"]
        return found
    return {}


def _entries(folder: Path) -> list[dict[str, str]]:
    """The entries of objects in the folder of a view or of a job."""
    with suppress(OSError, ValueError, KeyError):
        if (folder / OBJECTS).exists():
            return list(read_json(folder / OBJECTS))
        return list(read_json(folder / FINDING)["objects"])
    return []


def _report(row: sqlite3.Row, image: ViewScores) -> ViewReport:
    scores = image.scores[final_score(image.scores)] if image.scores else {}
    return ViewReport(view=row["view"], outcome=image.status, reason=row["reason"], scores=scores)


def _exam(images: Sequence[ViewScores]) -> ExamScores:
    return score_exams(images)[0]


def _deliveries(connection: sqlite3.Connection, job_id: int) -> dict[str, str]:
    rows = connection.execute("SELECT target, state FROM parcel WHERE job_id = ? ORDER BY id", (job_id,))
    return {row["target"]: row["state"] for row in rows}


_EQUAL = ("patient_id", "patient_issuer", "birth_date", "accession_number")
"""Fields of `Subject` in which the images of a study must agree."""


def _subject(study_uid: str, paths: Sequence[Path]) -> Subject:
    """Identifiers from the mammograms that can be read: those of the first one, if all agree."""
    found = []
    for path in paths:
        with suppress(DicomError, OSError):
            texts = read_texts(path, tuple(_SUBJECT.values()))
            found.append({field: texts[keyword] for field, keyword in _SUBJECT.items()})
    if len({tuple(each[field] for field in _EQUAL) for each in found}) > 1:
        return Subject(study_uid=study_uid, differs=True)
    if not found:
        return Subject(study_uid=study_uid)
    return Subject(study_uid=study_uid, differs=False, **found[0])

"""Content of a notification, from which every kind of message is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from unicodedata import category

from glam_deploy.appliance.state.notify_events import Event
from glam_deploy.exams import ExamScores, Triage

STATEMENT = "Research use only. Not for diagnosis. Scores are not calibrated probabilities."
"""Part of every message."""

DIFFERENT_PATIENTS = (
    "the images of this study name different patients or orders, so that no message about one of them is sent: correct "
    "the images (queue show), or discard the notification"
)
"""Why a message that needs the patient is not sent."""

NO_PATIENT = (
    "no image of this study that can be read states a Patient ID, so that no message that needs the patient is sent: "
    "correct the images (queue show), or discard the notification"
)
"""As DIFFERENT_PATIENTS."""

TITLES: Mapping[Event, str] = {
    "delivered": "Results delivered",
    "failed": "Processing or delivery failed",
    "refused_views": "Images without a result",
    "superseded": "Result no longer valid",
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Identifiers of patient and study, from the header of a mammogram. Never logged; texts are "" if absent."""

    study_uid: str = field(repr=False)
    patient_id: str = field(default="", repr=False)
    patient_issuer: str = field(default="", repr=False)
    patient_name: str = field(default="", repr=False)
    """As in DICOM: components separated by "^", the ideographic and phonetic groups by "="."""
    birth_date: str = field(default="", repr=False)
    """YYYYMMDD."""
    sex: str = field(default="", repr=False)
    """M, F, O, or ""."""
    accession_number: str = field(default="", repr=False)
    study_date: str = field(default="", repr=False)
    """YYYYMMDD."""
    study_time: str = field(default="", repr=False)
    """HHMMSS, HHMM or HH."""
    differs: bool = False
    """Whether the images of the study differ in patient or accession number; the identifiers are then left out."""

    @property
    def lack(self) -> str:
        """Why no message that needs the patient can be sent; "" if it can."""
        return DIFFERENT_PATIENTS if self.differs else "" if plain(self.patient_id).strip() else NO_PATIENT


@dataclass(frozen=True, kw_only=True)
class ViewReport:
    """One mammogram of the job."""

    view: str | None
    """L-CC, R-CC, L-MLO or R-MLO."""
    outcome: str
    """"done", "skipped" or "failed"; "waiting" if the job ended before; "removed" if its result has been removed."""
    reason: str | None
    """Why it has no result, without identifiers."""
    scores: Mapping[str, float]
    """Class -> the network's final score, 0..1, not calibrated; empty without a result."""


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """A mammogram that was received, or a result object that a target has accepted."""

    sop_uid: str
    sop_class: str
    series_uid: str
    modality: str


@dataclass(frozen=True, kw_only=True)
class Message:
    """A notification with its content."""

    id: str
    """32 hexadecimal digits; equal for every try, and for every receiver of the event."""
    event: Event
    at: datetime
    """Time of the event, UTC."""
    reason: str
    """Why, without identifiers; "" if the event says it all."""
    study: str
    """Pseudonym of the study, as in logs and on the page."""
    result: str
    """Identifier of the result: the key of the job."""
    superseded: bool
    """Whether the result is no longer valid, whatever the event."""
    superseded_by: str | None
    """Identifier of the result that replaces it, if there is one."""
    views: tuple[ViewReport, ...]
    """Without For Processing images beside a For Presentation image of the same view."""
    exam: ExamScores | None
    """None without a result."""
    deliveries: Mapping[str, str]
    """Target -> state of the delivery of the result: "pending", "delivered", "dead" or "discarded"."""
    triage: Triage | None
    """None unless results.triage_threshold is set."""
    subject: Subject = field(repr=False)
    objects: tuple[StoredObject, ...] = field(repr=False)
    """All mammograms of the study, and all of its result objects that a target has accepted."""

    @property
    def title(self) -> str:
        return TITLES[self.event]

    @property
    def has_scores(self) -> bool:
        return any(view.scores for view in self.views)

    def lines(self) -> list[str]:
        """The content as text without identifiers, for readers."""
        lines = [f"{self.title}{f': {self.reason}' if self.reason else ''}"]
        if self.superseded:
            lines.append(f"This result is no longer valid. It is replaced by: {self.superseded_by or 'no result yet'}")
        lines += [_view_line(view) for view in self.views]
        lines += [f"Delivery to {target}: {state}" for target, state in self.deliveries.items()]
        return [plain(line) for line in (*lines, *([str(self.triage)] if self.triage else []), STATEMENT)]


def _view_line(view: ViewReport) -> str:
    scores = ", ".join(f"{label} {value:.3f}" for label, value in view.scores.items())
    return f"{view.view or 'view not known'}: {scores or view.outcome}{f' ({view.reason})' if view.reason else ''}"


def plain(text: str) -> str:
    """The text in one line: a blank for each control character and line or paragraph separator (categories Cc, Zl, Zp).

    Values of headers may have them, and would forge lines, segments or the end of a message.
    """
    return "".join(" " if category(letter) in ("Cc", "Zl", "Zp") else letter for letter in text)


def moment(seconds: float) -> datetime:
    """Wall clock time of `state.db` as UTC, in whole milliseconds."""
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def iso(at: datetime) -> str:
    """As in "2026-11-29T08:30:00.123Z" (RFC 3339)."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

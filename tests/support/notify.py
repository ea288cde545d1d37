"""An appliance whose studies end in every way, and workers that tell receivers of it by a clock that tests turn."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from glam_deploy.appliance.config import Config, Dispatch, Notify
from glam_deploy.appliance.notify.client import client_of
from glam_deploy.appliance.notify.compose import Composer
from glam_deploy.appliance.notify.fhir import diagnostic_report, imaging_study
from glam_deploy.appliance.notify.hl7 import oru
from glam_deploy.appliance.notify.mail import text_of
from glam_deploy.appliance.notify.message import Message, StoredObject, Subject, ViewReport
from glam_deploy.appliance.notify.webhook import payload
from glam_deploy.appliance.notify.worker import NotificationWorker
from glam_deploy.appliance.state import notifications
from glam_deploy.exams import Triage, ViewScores, score_exams
from glam_deploy.records import View
from support.web import Appliance

ALL = ("delivered", "failed", "refused_views", "superseded")


def entry(**values: Any) -> Notify:
    """An entry of [[notify]] named "ris"."""
    found: Notify = TypeAdapter(Notify).validate_python({"name": "ris", **values})
    return found


@dataclass
class Site:
    """An appliance with targets "pacs" and "archive"."""

    made: Appliance
    now: float = 1000.0
    composer_threshold: float | None = 0.001
    """results.triage_threshold of messages; every malignant score of the tests is larger."""

    def queue(self, *events: str) -> int:
        """The notifications of all new events to "ris"."""
        return notifications.queue(self.made.connection, {"ris": events or ALL})

    def worker(self, to: Notify, *, client: Any = None, attempts: int = 3) -> NotificationWorker:
        context = self.made.context
        return NotificationWorker(
            target=to,
            policy=Dispatch(attempts=attempts),
            client=client or client_of(to, 5.0),
            composer=self.composer,
            connection=self.made.connection,
            monotonic=lambda: self.now,
            audit=context.audit,
        )

    @property
    def composer(self) -> Composer:
        config = with_triage(self.made.context.config, self.composer_threshold)
        return Composer(config, self.made.context.data)

    def messages(self) -> list[Message]:
        """The content of all that waits."""
        self.queue()
        rows = self.made.connection.execute(f"{notifications._ROWS} WHERE n.state = 'pending' ORDER BY n.id").fetchall()
        found = [notifications.Notification(**row) for row in rows]
        return [self.composer.compose(self.made.connection, each) for each in found]

    def states(self) -> list[tuple[str, str]]:
        """Event and state of each notification."""
        rows = self.made.connection.execute(
            "SELECT event, state FROM notification n JOIN notify_event e ON e.id = event_id ORDER BY n.id"
        )
        return [(row["event"], row["state"]) for row in rows]

    def deliver_all(self) -> None:
        for target in self.made.context.config.targets:
            self.made.deliver(target.name)


def exhaust(worker: NotificationWorker) -> None:
    while worker.step():
        pass


def with_triage(config: Config, threshold: float | None) -> Config:
    return config.model_copy(update={"results": config.results.model_copy(update={"triage_threshold": threshold})})


EXAMPLE = Message(
    id="6f1c2a9d0b7e4f58a3d1c0e9b8a7f6e5",
    event="delivered",
    at=datetime(2026, 11, 29, 8, 30, 15, 250_000, tzinfo=UTC),
    reason="",
    study="5b0c9e3f7a1d2468",
    result="0f3a" * 16,
    superseded=False,
    superseded_by=None,
    views=(
        ViewReport(view="R-CC", outcome="done", reason=None, scores={"benign": 0.125, "malignant": 0.25}),
        ViewReport(view="R-MLO", outcome="failed", reason="the pixels cannot be decoded: send it again", scores={}),
    ),
    exam=score_exams(
        [
            ViewScores(
                exam="",
                view=View.R_CC,
                status="done",
                scores={"y_fusion": {"benign": 0.125, "malignant": 0.25}},
            ),
            ViewScores(exam="", view=View.R_MLO, status="failed", scores={}),
        ]
    )[0],
    deliveries={"pacs": "delivered"},
    triage=Triage(threshold=0.2, highest=0.25, without_result=1),
    subject=Subject(
        study_uid="1.2.826.0.1.3680043.8.498.1",
        patient_id="P-4711",
        patient_name="Doe^Jane",
        birth_date="19700131",
        sex="F",
        accession_number="A-100",
        study_date="20261129",
        study_time="080012",
    ),
    objects=(
        StoredObject(
            sop_uid="1.2.826.0.1.3680043.8.498.1.1.1",
            sop_class="1.2.840.10008.5.1.4.1.1.1.2",
            series_uid="1.2.826.0.1.3680043.8.498.1.1",
            modality="MG",
        ),
        StoredObject(
            sop_uid="2.25.291", sop_class="1.2.840.10008.5.1.4.1.1.88.50", series_uid="2.25.290", modality="SR"
        ),
    ),
)
"""The study of docs/notifications.md: one view delivered, one refused."""


def examples() -> dict[str, str]:
    """The messages about EXAMPLE as in docs/notifications.md, by kind."""
    mail = entry(
        kind="email", host="mail.example", sender="glam@hospital.example", recipients=["radiology@hospital.example"]
    )
    ris = entry(
        kind="hl7",
        host="ris.example",
        port=2575,
        plain=True,
        sending_facility="RADIOLOGY",
        receiving_application="RIS",
        patient_authority="HOSPITAL",
    )
    server = entry(
        kind="fhir",
        url="https://fhir.example/r4",
        patient_system="https://hospital.example/patients",
        accession_system="https://hospital.example/orders",
    )
    assert mail.kind == "email"
    assert ris.kind == "hl7"
    assert server.kind == "fhir"
    return {
        "webhook": json.dumps(json.loads(payload(EXAMPLE, identifiers=True)), indent=2),
        "email": text_of(EXAMPLE, mail).as_string(),
        "hl7": oru(EXAMPLE, ris).replace("\r", "\n"),
        "fhir report": json.dumps(diagnostic_report(EXAMPLE, server), indent=2),
        "fhir study": json.dumps(imaging_study(EXAMPLE, server), indent=2),
    }

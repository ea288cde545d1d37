"""An appliance whose studies end in every way, and workers that tell receivers of it by a clock that tests turn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from glam_deploy.appliance.config import Config, Dispatch, Notify
from glam_deploy.appliance.notify.client import client_of
from glam_deploy.appliance.notify.compose import Composer
from glam_deploy.appliance.notify.message import Message
from glam_deploy.appliance.notify.worker import NotificationWorker
from glam_deploy.appliance.state import notifications
from support.web import Appliance, configuration

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
        return Composer(self.made.context.config, self.made.context.data)

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


def triage_configuration(root: Path, threshold: float | None) -> Config:
    config = configuration(root)
    return config.model_copy(update={"results": config.results.model_copy(update={"triage_threshold": threshold})})

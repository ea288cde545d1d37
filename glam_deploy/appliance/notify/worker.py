"""Sends the notifications of one entry of [[notify]], in the order of their events, and handles failures.

Failures are treated as those of deliveries (`dispatcher.DeliveryWorker`): a receiver that cannot be reached is retried
without end; a message that a reachable receiver refuses ends in the dead letter queue after `dispatch.attempts`.
"""

import logging
import sqlite3
from dataclasses import dataclass

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.backup.replication import Hold
from glam_deploy.appliance.config import Dispatch, Notify
from glam_deploy.appliance.notify.client import NotifyClient
from glam_deploy.appliance.notify.compose import Composer
from glam_deploy.appliance.process import RECURRING
from glam_deploy.appliance.state import notifications
from glam_deploy.appliance.state.database import MonotonicClock
from glam_deploy.appliance.state.notifications import Notification
from glam_deploy.appliance.targets import Backoff, TargetHealth
from glam_deploy.errors import PeerBroke, PeerError, fault

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class NotificationWorker:
    """Sends to the entry `target` through `client`; used by the one thread that owns `connection`."""

    target: Notify
    policy: Dispatch
    client: NotifyClient
    composer: Composer
    connection: sqlite3.Connection
    monotonic: MonotonicClock
    audit: Audit
    hold: Hold = lambda: ""
    """As of `dispatcher.DeliveryWorker`."""

    def __post_init__(self) -> None:
        self._backoff = Backoff(first_s=self.policy.first_retry_s, longest_s=self.policy.longest_retry_s)
        self.health: TargetHealth[Notification] = TargetHealth(backoff=self._backoff)
        self.progress: float | None = None
        """While a message is being sent: monotonic time of its beginning; else None."""

    def step(self) -> bool:
        """Try the next notification that is due; False if there is none, or the receiver is not to be tried yet."""
        now = self.monotonic()
        if notifications.take_retry_request(self.connection, self.target.name):
            self.health.retry_now()
        if not self.health.may_try(now):
            return False
        found = notifications.next_notification(self.connection, self.target.name, now, last=self.health.suspects)
        if found is None or self._held():
            return False
        self.progress = now
        try:
            self._notify(found)
        finally:
            self.progress = None
        return True

    def _held(self) -> bool:
        """Whether nothing may be sent now; the reason is shown as the receiver's."""
        if reason := self.hold():
            log.error("notify %s: messages are held: %s", self.target.name, reason, extra=RECURRING)
            self.health.reason = reason
        return bool(reason)

    def _notify(self, found: Notification) -> None:
        try:
            refusal = self.client.send(self.composer.compose(self.connection, found))
        except PeerBroke as error:
            self._handle_interruption(found, str(error))
        except PeerError as error:
            self._handle_unreachable(found, str(error))
        except sqlite3.Error:
            raise
        except Exception as error:  # a fault of glam-deploy or of a library must not block the other notifications
            self._count_failed_attempt(found, f"a fault while sending: {fault(error)}")
        else:
            self._record_answer(found, refusal)

    def _record_answer(self, found: Notification, refusal: str) -> None:
        for blamed in self.health.record_success(found.id):
            self._count_failed_attempt(blamed.delivery, blamed.reason)
        if refusal:
            self._count_failed_attempt(found, refusal)
            return
        # audit first: a crash in between may repeat a line but never loses one
        self._audit("notified", found)
        notifications.mark_delivered(self.connection, found.id)
        log.info("study %s: %s told of %s", found.pseudonym, self.target.name, found.event)

    def _handle_unreachable(self, found: Notification, reason: str) -> None:
        notifications.postpone(self.connection, found.id, reason, 0.0)  # it waits for the receiver alone
        self.health.record_unreachable(self.monotonic(), reason)
        wait = self.health.not_before - self.monotonic()
        log.warning("notify %s: waiting %.0f s (%s)", self.target.name, wait, reason)

    def _handle_interruption(self, found: Notification, reason: str) -> None:
        try:
            self.client.check()
        except PeerError:
            self._handle_unreachable(found, reason)
            return
        next_try = self.health.record_interruption(found.id, found, self.monotonic(), reason)
        notifications.postpone(self.connection, found.id, reason, next_try)
        log.warning("study %s: %s is not told of %s: %s", found.pseudonym, self.target.name, found.event, reason)

    def _count_failed_attempt(self, found: Notification, reason: str) -> None:
        """Count a failed attempt at a receiver that works."""
        next_try = self.monotonic() + self._backoff.after(found.attempts + 1)
        died = notifications.count_failed_attempt(
            self.connection, found.id, reason, next_try, attempts=self.policy.attempts
        )
        log.warning("study %s: %s is not told of %s: %s", found.pseudonym, self.target.name, found.event, reason)
        if died:
            log.error("study %s: the notification to %s is dead after all attempts", found.pseudonym, self.target.name)
            self._audit("not_notified", found)

    def _audit(self, event: str, found: Notification) -> None:
        self.audit.write(event, study=found.study_uid, target=self.target.name, about=found.event, id=found.id)

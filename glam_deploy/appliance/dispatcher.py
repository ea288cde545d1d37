"""The role `dispatcher`: one worker per target and entry of [[notify]], each in a thread, so that none delays another.

A delivery worker sends its deliveries in order of arrival, verifies them, and handles failures. Those of notifications
are in notify/worker.py.
"""

import logging
import secrets
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glam_deploy.appliance.audit import Audit, open_audit
from glam_deploy.appliance.backup.replication import Hold, hold_of
from glam_deploy.appliance.config import Config, Dispatch, Notify, Target
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.notify.client import client_of
from glam_deploy.appliance.notify.compose import Composer
from glam_deploy.appliance.notify.worker import NotificationWorker
from glam_deploy.appliance.process import RECURRING, watch_threads
from glam_deploy.appliance.state import deliveries, notifications
from glam_deploy.appliance.state.database import MonotonicClock, monotonic_clock, open_database, record_heartbeat
from glam_deploy.appliance.state.deliveries import Delivery
from glam_deploy.appliance.state.delivery_parts import parts_of_delivery, shortfall
from glam_deploy.appliance.targets import (
    LOOP_REASON,
    Backoff,
    Suspect,
    TargetClient,
    TargetHealth,
    is_own_address,
    target_client,
)
from glam_deploy.dicom.net.delivery import Item, Outcome, Session
from glam_deploy.dicom.uids import derived_uid
from glam_deploy.errors import PeerBroke, PeerDeclined, PeerError, fault

log = logging.getLogger(__name__)

COMMITMENT_S = 1.0
"""Wait for a storage commitment report on the association of its request; later reports go to the receiver."""


POLL_S = 0.05
"""Between two checks for deliveries; part of the time from the last view to the results."""
HEARTBEAT_S = 1.0
STALLED_TIMEOUTS = 2
"""A target is reported as failing after this many times `dispatch.timeout_s` without progress,"""
INTERRUPTIONS = 2
"""or after it has broken off this often at the same delivery, which may itself be the cause."""
STOP_S = 5.0
"""Time that the targets' threads have to finish when the process stops; what is cut off is sent again."""


class _Held(Exception):
    """Deliveries are held since the session began; what is left of this one is sent when they no longer are."""


@dataclass(kw_only=True)
class DeliveryWorker:
    """Sends to `target` through `client`; used by the one thread that owns `connection`."""

    target: Target
    policy: Dispatch
    client: TargetClient
    connection: sqlite3.Connection
    monotonic: MonotonicClock
    root: Path
    """The data folder; paths of objects are relative to it."""
    audit: Audit
    hold: Hold = lambda: ""
    """Why nothing may be sent now, such as another node that has taken over; "" if it may."""

    def __post_init__(self) -> None:
        self._backoff = Backoff(first_s=self.policy.first_retry_s, longest_s=self.policy.longest_retry_s)
        self.health: TargetHealth[Delivery] = TargetHealth(backoff=self._backoff)
        self.progress: float | None = None
        """While a delivery is being sent: monotonic time of the target's last answer; else None."""
        self.held = False

    def step(self) -> bool:
        """Try the next delivery that is due; False if there is none, or the target is not to be tried yet."""
        now = self.monotonic()
        if deliveries.take_retry_request(self.connection, self.target.name):
            self.health.retry_now()
        if not self.health.may_try(now):
            return False
        delivery = deliveries.next_delivery(self.connection, self.target.name, now, last=self.health.suspects)
        if delivery is None or self._held():
            return False
        self.progress = self.monotonic()
        try:
            self._deliver(delivery)
        finally:
            self.progress = None
        return True

    def _held(self) -> bool:
        """Whether nothing may be sent now. The reason is shown as the target's until it may again."""
        reason = self.hold()
        if reason:
            log.error("target %s: deliveries are held: %s", self.target.name, reason, extra=RECURRING)
        if reason or self.held:
            self.health.reason = reason
        self.held = bool(reason)
        return self.held

    def _deliver(self, delivery: Delivery) -> None:
        try:
            self._send(delivery)
        except _Held:
            return
        except PeerBroke as error:
            self._handle_interruption(delivery, str(error))
        except PeerDeclined as error:
            self._handle_declined(delivery, str(error))
        except PeerError as error:
            self._handle_unreachable(delivery, str(error))
        except sqlite3.Error:
            raise
        except Exception as error:  # a fault of glam-deploy or of a library must not block the other deliveries
            self._count_failed_attempt(delivery, f"a fault while sending: {fault(error)}")
        else:
            self._close(delivery)

    def _send(self, delivery: Delivery) -> None:
        """Send and verify all unproven objects of a delivery in one session."""
        objects = deliveries.unproven(self.connection, delivery.id)
        if not objects:
            return
        items = {each.sop_uid: Item(sop_uid=each.sop_uid, path=self.root / each.path) for each in objects}
        with self.client.session(list(items.values())) as session:
            if self.target.query:
                self._recheck_sent(session, delivery, [items[each.sop_uid] for each in objects if each.sent])
            waiting = [
                items[each.sop_uid] for each in deliveries.unproven(self.connection, delivery.id) if not each.sent
            ]
            no_room = self._store(session, delivery, waiting)
            if not no_room:
                self._prove(session, delivery, items)
        if no_room:
            raise PeerBroke(no_room)
        self._record_success(delivery)

    def _recheck_sent(self, session: Session, delivery: Delivery, items: Sequence[Item]) -> None:
        """Query for objects that an earlier session sent without proof; those that are missing are sent again."""
        if items and not self.target.commitment:
            held = session.holds(items)
            deliveries.mark_proven(self.connection, delivery.id, held)
            deliveries.mark_lost(self.connection, delivery.id, {item.sop_uid for item in items} - held)

    def _store(self, session: Session, delivery: Delivery, items: Sequence[Item]) -> str:
        """Send the objects one by one, storing each answer at once; the reason if the target is out of resources."""
        for item in items:
            if self.hold():
                raise _Held
            answer = session.store(item)
            if answer.outcome is Outcome.NO_ROOM:
                return f"{self.target.name}: {answer.reason}"
            if answer.outcome is Outcome.STORED:
                # audit first: a crash in between may repeat a line but never loses one
                self.audit.write("sent", study=delivery.study_uid, instance=item.sop_uid, target=self.target.name)
                deliveries.mark_sent(self.connection, delivery.id, item.sop_uid, answer.reason)
            else:
                deliveries.mark_refused(self.connection, delivery.id, item.sop_uid, answer.reason)
            self._record_success(delivery)
        return ""

    def _prove(self, session: Session, delivery: Delivery, items: Mapping[str, Item]) -> None:
        """Verify delivery by what the target holds; this includes objects that it refused as duplicates."""
        objects = deliveries.unproven(self.connection, delivery.id)
        if self.target.commitment:
            self._commit(session, delivery, [items[each.sop_uid] for each in objects if each.sent])
        elif self.target.query:
            deliveries.mark_proven(
                self.connection, delivery.id, session.holds([items[each.sop_uid] for each in objects])
            )

    def _commit(self, session: Session, delivery: Delivery, items: Sequence[Item]) -> None:
        if not items:
            return
        transaction_uid = derived_uid("transaction", secrets.token_hex(16))
        deliveries.record_commitment_request(self.connection, delivery.id, transaction_uid)
        report = session.commit(items, transaction_uid, wait_s=COMMITMENT_S)
        if report:
            deliveries.apply_commitment_report(
                self.connection, transaction_uid, committed=report.committed, failed=report.failed
            )

    def _close(self, delivery: Delivery) -> None:
        """End a session: mark the delivery as delivered, or count a failed attempt."""
        if deliveries.complete(self.connection, delivery.id, proof=self._needs_proof):
            log.info("study %s: results delivered to %s", delivery.pseudonym, self.target.name)
            self.audit.write("delivered", study=delivery.study_uid, target=self.target.name)
        else:
            parts = parts_of_delivery(self.connection, delivery.id)
            self._count_failed_attempt(delivery, shortfall(parts, proof=self._needs_proof))

    @property
    def _needs_proof(self) -> bool:
        return self.target.query or self.target.commitment

    def _record_success(self, delivery: Delivery) -> None:
        """Close the circuit, and count an attempt for the deliveries that turn out to be the cause of interruptions."""
        self.progress = self.monotonic()
        for blamed in self.health.record_success(delivery.id):
            self._count_failed_attempt(blamed.delivery, blamed.reason)

    def _handle_unreachable(self, delivery: Delivery, reason: str) -> None:
        deliveries.postpone(self.connection, delivery.id, reason, 0.0)  # it waits for the target alone
        self.health.record_unreachable(self.monotonic(), reason)
        log.warning(
            "target %s: waiting %.0f s (%s)", self.target.name, self.health.not_before - self.monotonic(), reason
        )

    def _handle_interruption(self, delivery: Delivery, reason: str) -> None:
        try:
            self.client.check_reachable()
        except PeerError:
            self._handle_unreachable(delivery, reason)
            return
        next_try = self.health.record_interruption(delivery.id, delivery, self.monotonic(), reason)
        deliveries.postpone(self.connection, delivery.id, reason, next_try)
        log.warning("study %s is not delivered to %s: %s", delivery.pseudonym, self.target.name, reason)

    def _handle_declined(self, delivery: Delivery, reason: str) -> None:
        """Postpone: a person must change the configuration, here or at the target. No attempt counts."""
        self.health.reason = reason
        deliveries.postpone(self.connection, delivery.id, reason, self.monotonic() + self.policy.longest_retry_s)
        log.error("study %s cannot be proven at %s: %s", delivery.pseudonym, self.target.name, reason)

    def _count_failed_attempt(self, delivery: Delivery, reason: str) -> None:
        """Count a failed attempt at a target that works."""
        next_try = self.monotonic() + self._backoff.after(delivery.attempts + 1)
        state = deliveries.count_failed_attempt(
            self.connection,
            delivery.id,
            reason,
            next_try,
            attempts=self.policy.attempts,
            proof=self._needs_proof,
        )
        if state in ("pending", "dead"):
            log.warning("study %s is not delivered to %s: %s", delivery.pseudonym, self.target.name, reason)
        if state == "dead":
            log.error("study %s: delivery to %s is dead after all its attempts", delivery.pseudonym, self.target.name)
            self.audit.write("undeliverable", study=delivery.study_uid, target=self.target.name)


Worker = DeliveryWorker | NotificationWorker


def run(config: Config, stop: threading.Event) -> None:
    """Send deliveries and notifications until `stop` is set.

    Raises UsageError if the data folder cannot be used, InternalError if a target's thread has ended.
    """
    data = DataFolder(root=config.data)
    data.make()
    audit = open_audit(data)
    with closing(open_database(data.database)) as connection:
        monotonic = monotonic_clock(connection)
        own_addresses = [target.name for target in config.targets if is_own_address(target, config)]
        workers: list[Worker] = [
            _worker_of(target, config, data, audit) for target in config.targets if target.name not in own_addresses
        ]
        workers += [_notification_worker(entry, config, data, audit) for entry in config.notify]
        _log_unusable_targets(connection, config, own_addresses)
        threads = [threading.Thread(target=_run_worker, args=(worker, stop), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        wanted = {entry.name: entry.events for entry in config.notify}

        def each_second() -> None:
            notifications.queue(connection, wanted)
            _heartbeat(connection, monotonic, workers, own_addresses)

        watch_threads(each_second, threads, stop, stop_s=STOP_S)


def _worker_of(target: Target, config: Config, data: DataFolder, audit: Audit) -> DeliveryWorker:
    """The delivery worker of a target, with a database connection of its own that is used by its thread."""
    connection = open_database(data.database, one_thread=False)
    return DeliveryWorker(
        target=target,
        policy=config.dispatch,
        client=target_client(target, config.dispatch.timeout_s),
        connection=connection,
        monotonic=monotonic_clock(connection),
        root=data.root,
        audit=audit,
        hold=hold_of(config),
    )


def _notification_worker(entry: Notify, config: Config, data: DataFolder, audit: Audit) -> NotificationWorker:
    """The worker of an entry of [[notify]], with a database connection of its own."""
    connection = open_database(data.database, one_thread=False)
    return NotificationWorker(
        target=entry,
        policy=config.dispatch,
        client=client_of(entry, config.dispatch.timeout_s),
        composer=Composer(config, data),
        connection=connection,
        monotonic=monotonic_clock(connection),
        audit=audit,
        hold=hold_of(config),
    )


def _run_worker(worker: Worker, stop: threading.Event) -> None:
    """Body of a target's thread."""
    with closing(worker.connection):
        while not stop.wait(POLL_S):
            try:
                while worker.step() and not stop.is_set():
                    pass
            except sqlite3.OperationalError as error:  # a full disk: retry until there is space
                log.error("state.db cannot be written (%s)", error, extra=RECURRING)
                stop.wait(HEARTBEAT_S)


def _heartbeat(
    connection: sqlite3.Connection,
    monotonic: MonotonicClock,
    workers: Sequence[Worker],
    own_addresses: Sequence[str],
) -> None:
    record_heartbeat(connection, monotonic, "dispatcher", "ready", {})
    for name in own_addresses:
        record_heartbeat(connection, monotonic, f"target:{name}", "failing", {"reason": LOOP_REASON})
    for worker in workers:
        record_heartbeat(connection, monotonic, f"target:{worker.target.name}", *_state_of(worker, monotonic()))


def _state_of(worker: Worker, now: float) -> tuple[str, Mapping[str, str | int]]:
    """State and detail of a target: ready; waiting (it cannot be reached); failing (it needs a person)."""
    health = worker.health
    if not health.reason:
        reason = _stalled(worker, now)
        return ("failing", {"reason": reason}) if reason else ("ready", {})
    if health.may_try(now):
        return "failing", {"reason": health.reason}
    return "waiting", {"reason": health.reason, "next_try_s": round(health.not_before - now)}


def _stalled(worker: Worker, now: float) -> str:
    """Why a target that is not known to fail makes no progress; "" if it does."""
    waited = now - (worker.progress or now)
    if waited > STALLED_TIMEOUTS * worker.policy.timeout_s:
        return f"no progress for {waited:.0f} s while sending a result set"
    suspects: list[Suspect[Any]] = [*worker.health.suspects.values()]
    worst = max(suspects, key=lambda suspect: suspect.times, default=None)
    if worst and worst.times >= INTERRUPTIONS:
        return f"{worst.reason} ({worst.times} times in a row for the same study)"
    return ""


def _log_unusable_targets(connection: sqlite3.Connection, config: Config, own_addresses: Sequence[str]) -> None:
    """Log targets that are this appliance itself, and deliveries whose target is not configured."""
    for name in own_addresses:
        log.error("target %s is not used: %s", name, LOOP_REASON)
    for name, count in deliveries.unconfigured_targets(connection, [target.name for target in config.targets]).items():
        log.warning("%d deliveries wait for target %s, which is not configured: add it to [[targets]], or discard "
                    "them with `glam-deploy queue discard --target %s`", count, name, name)  # fmt: skip
    for name, count in notifications.unconfigured_targets(connection, [entry.name for entry in config.notify]).items():
        log.warning("%d notifications wait for %s, which is not configured: add it to [[notify]], or discard them with "
                    "`glam-deploy queue discard --target %s`", count, name, name)  # fmt: skip

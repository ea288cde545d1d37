"""The role `dispatcher`: one delivery worker per target, each in its own thread, so that no target delays another."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial

from glam_deploy.appliance.audit import Audit, open_audit
from glam_deploy.appliance.config import Config, Target
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.dispatch.delivery_worker import DeliveryWorker
from glam_deploy.appliance.dispatch.targets import LOOP_REASON, is_own_address, target_client
from glam_deploy.appliance.state import deliveries
from glam_deploy.appliance.state.database import MonotonicClock, monotonic_clock, open_database
from glam_deploy.appliance.state.events import record_heartbeat
from glam_deploy.errors import InternalError

log = logging.getLogger(__name__)

POLL_S = 0.05
"""Between two checks for deliveries; part of the time from the last view to the results."""
HEARTBEAT_S = 1.0
STALLED_TIMEOUTS = 2
"""A target is reported as failing after this many times `dispatch.timeout_s` without progress,"""
INTERRUPTIONS = 2
"""or after it has broken off this often at the same delivery, which may itself be the cause."""
STOP_S = 5.0
"""Time that the targets' threads have to finish when the process stops; what is cut off is sent again."""


def run(config: Config, stop: threading.Event) -> None:
    """Send deliveries until `stop` is set.

    Raises UsageError if the data folder cannot be used, InternalError if a target's thread has ended.
    """
    data = DataFolder(root=config.data)
    data.make()
    audit = open_audit(data)
    with closing(open_database(data.database)) as connection:
        monotonic = monotonic_clock(connection)
        own_addresses = [target.name for target in config.targets if is_own_address(target, config)]
        workers = [
            _worker_of(target, config, data, audit) for target in config.targets if target.name not in own_addresses
        ]
        _log_unusable_targets(connection, config, own_addresses)
        threads = [threading.Thread(target=_run_worker, args=(worker, stop), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        _supervise(partial(_heartbeat, connection, monotonic, workers, own_addresses), threads, stop)


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
    )


def _run_worker(worker: DeliveryWorker, stop: threading.Event) -> None:
    """Body of a target's thread."""
    with closing(worker.connection):
        while not stop.wait(POLL_S):
            try:
                while worker.step() and not stop.is_set():
                    pass
            except sqlite3.OperationalError as error:  # a full disk: retry until there is space
                log.error("state.db cannot be written (%s)", error)
                stop.wait(HEARTBEAT_S)


def _supervise(send_heartbeats: Callable[[], None], threads: Sequence[threading.Thread], stop: threading.Event) -> None:
    """Send heartbeats once a second until `stop`, then wait for the threads."""
    while not stop.is_set():
        if not all(thread.is_alive() for thread in threads) and not stop.is_set():
            raise InternalError("the thread of a target has ended: see the log for the reason")
        try:
            send_heartbeats()
        except sqlite3.OperationalError as error:
            log.error("state.db cannot be written (%s)", error)
        stop.wait(HEARTBEAT_S)
    deadline = time.monotonic() + STOP_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _heartbeat(
    connection: sqlite3.Connection,
    monotonic: MonotonicClock,
    workers: Sequence[DeliveryWorker],
    own_addresses: Sequence[str],
) -> None:
    record_heartbeat(connection, monotonic, "dispatcher", "ready", {})
    for name in own_addresses:
        record_heartbeat(connection, monotonic, f"target:{name}", "failing", {"reason": LOOP_REASON})
    for worker in workers:
        record_heartbeat(connection, monotonic, f"target:{worker.target.name}", *_state_of(worker, monotonic()))


def _state_of(worker: DeliveryWorker, now: float) -> tuple[str, Mapping[str, str | int]]:
    """State and detail of a target: ready; waiting (it cannot be reached); failing (it needs a person)."""
    health = worker.health
    if not health.reason:
        reason = _stalled(worker, now)
        return ("failing", {"reason": reason}) if reason else ("ready", {})
    if health.may_try(now):
        return "failing", {"reason": health.reason}
    return "waiting", {"reason": health.reason, "next_try_s": round(health.not_before - now)}


def _stalled(worker: DeliveryWorker, now: float) -> str:
    """Why a target that is not known to fail makes no progress; "" if it does."""
    waited = now - (worker.progress or now)
    if waited > STALLED_TIMEOUTS * worker.policy.timeout_s:
        return f"no progress for {waited:.0f} s while sending a result set"
    worst = max(worker.health.suspects.values(), key=lambda suspect: suspect.times, default=None)
    if worst and worst.times >= INTERRUPTIONS:
        return f"{worst.reason} ({worst.times} times with the same result set)"
    return ""


def _log_unusable_targets(connection: sqlite3.Connection, config: Config, own_addresses: Sequence[str]) -> None:
    """Log targets that are this appliance itself, and deliveries whose target is not configured."""
    for name in own_addresses:
        log.error("target %s is not used: %s", name, LOOP_REASON)
    for name, count in deliveries.unconfigured_targets(connection, [target.name for target in config.targets]).items():
        log.warning("%d deliveries wait for target %s, which is not configured: add it to [[targets]], or discard "
                    "them with `glam-deploy queue discard --target %s`", count, name, name)  # fmt: skip

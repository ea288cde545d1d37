"""The role `receiver`: the configured DICOM listeners, which hand received objects to the ingest."""

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing

from glam_deploy.appliance.audit import Audit, open_audit
from glam_deploy.appliance.config import Config, Receive
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.ingest import Ingest
from glam_deploy.appliance.process import RECURRING
from glam_deploy.appliance.state import deliveries
from glam_deploy.appliance.state.database import monotonic_clock, open_database, record_heartbeat
from glam_deploy.appliance.state.senders import ASSOCIATION, MOST_REFUSALS
from glam_deploy.dicom.net.delivery import Commitment
from glam_deploy.dicom.net.listener import AuditEvent, Listener, Rules, Sender, tls_context
from glam_deploy.dicom.net.peer import TlsFiles

HEARTBEAT_S = 1.0

_LOG = logging.getLogger(__name__)


def run(config: Config, stop: threading.Event) -> None:
    """Receive until `stop` is set. Raises UsageError if the data folder or an address cannot be used."""
    data = DataFolder(root=config.data)
    data.make()
    audit = open_audit(data)
    ingest, rejections = Ingest(config, data, audit), RejectionCounter()
    listener = Listener(
        listener_rules(config.receive),
        begin=lambda sender, claim: ingest.open(sender=sender, claim=claim),
        audit=lambda event: _audit_event(audit, event),
        on_commitment=lambda report: _report(data, report),
        on_rejected=rejections.add,
    )
    try:
        ports = _listen(listener, config.receive)
        _LOG.info("listening as %s, ports %s", config.receive.ae_title, ports)
        _heartbeat(
            config,
            data,
            listener,
            ports=ports,
            stop=stop,
            beat=lambda: rejections.write(ingest),
            damage=lambda: ingest.damage,
        )
    finally:
        listener.stop()
        rejections.write(ingest)
        ingest.close()


def listener_rules(receive: Receive) -> Rules:
    """The acceptance rules of the listener, from the configuration."""
    senders = tuple(Sender(ae_title=sender.ae_title, networks=sender.hosts) for sender in receive.senders)
    return Rules(
        ae_title=receive.ae_title,
        senders=senders,
        max_associations=receive.max_associations,
        idle_s=receive.idle_s,
        max_object_bytes=receive.max_object_bytes,
    )


def _listen(listener: Listener, receive: Receive) -> dict[str, int]:
    """Open the configured listeners; name -> port."""
    ports = {}
    if receive.port is not None:
        ports["dicom"] = listener.listen(receive.host, receive.port)
    if receive.tls is not None:
        files = TlsFiles(certificate=receive.tls.certificate, key=receive.tls.key, authority=receive.tls.authority)
        ports["dicom-tls"] = listener.listen(receive.host, receive.tls.port, tls=tls_context(files))
    return ports


def _report(data: DataFolder, report: Commitment) -> bool:
    """Apply a storage commitment report that a target sent on an association of its own; False if none waits for it."""
    with closing(open_database(data.database)) as database:
        return deliveries.apply_commitment_report(
            database, report.transaction_uid, committed=report.committed, failed=report.failed
        )


class RejectionCounter:
    """Counts rejected associations until the next heartbeat, so that no peer causes a transaction with each of them.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[int, str]] = {}

    def add(self, event: AuditEvent) -> None:
        """Count an event `rejected`; a sender too many between two heartbeats is counted without its name."""
        with self._lock:
            known = event.sender in self._counts or len(self._counts) < MOST_REFUSALS
            name = event.sender if known else ""
            before, _ = self._counts.get(name, (0, ""))
            self._counts[name] = before + event.times, event.reason

    def write(self, ingest: Ingest) -> None:
        """Write the counts to `state.db`."""
        with self._lock:
            counts, self._counts = self._counts, {}
        for sender, (times, reason) in counts.items():
            ingest.spool.record_refusal(sender, ASSOCIATION, reason, times=times)


def _audit_event(audit: Audit, event: AuditEvent) -> None:
    times = event.times if event.times > 1 else None
    audit.write(f"association_{event.event}", sender=event.sender, reason=event.reason or None, times=times)


def _heartbeat(
    config: Config,
    data: DataFolder,
    listener: Listener,
    *,
    ports: dict[str, int],
    stop: threading.Event,
    beat: Callable[[], None],
    damage: Callable[[], str],
) -> None:
    """Write a heartbeat every second, and call `beat`; the state is "failing" while the disk is below the reserve, or
    with a `damage` of `state.db`.
    """
    database = open_database(data.database)
    monotonic = monotonic_clock(database)
    while True:
        free = data.free_bytes()
        full = "the disk has less free space than receive.reserve_bytes"
        reason = damage() or full * (free < config.receive.reserve_bytes)
        detail = {"ports": ports, "associations": listener.associations, "free_bytes": free}
        if reason:
            detail["reason"] = reason
        try:
            record_heartbeat(database, monotonic, "receiver", "failing" if reason else "ready", detail)
        except sqlite3.DatabaseError as error:  # a full disk: senders get 0xA700; retry until there is space
            _LOG.error("state.db cannot be written (%s)", error, extra=RECURRING)
        beat()
        if stop.wait(HEARTBEAT_S):
            break
    database.close()

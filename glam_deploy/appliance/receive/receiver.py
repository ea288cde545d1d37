"""The receiver: the DICOM listeners of the configuration, with ingest behind them."""

import logging
import sqlite3
import threading
from contextlib import closing

from glam_deploy.appliance.audit import Audit, open_audit
from glam_deploy.appliance.config import Config, Receive
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.ingest import Ingest
from glam_deploy.appliance.state import parcels
from glam_deploy.appliance.state.database import open_database
from glam_deploy.appliance.state.events import beat
from glam_deploy.appliance.state.steady import steady_clock
from glam_deploy.dicom.net.delivery import Commitment
from glam_deploy.dicom.net.listener import Listener, Rules, Sender, Told, tls_context
from glam_deploy.dicom.net.peer import TlsFiles

BEAT_S = 1.0

_LOG = logging.getLogger(__name__)


def run(config: Config, stop: threading.Event) -> None:
    """Receive until `stop` is set. Raises UsageError where the data folder or an address cannot be used."""
    data = DataFolder(root=config.data)
    data.make()
    audit = open_audit(data)
    ingest = Ingest(config, data, audit)
    listener = Listener(
        rules_of(config.receive),
        begin=lambda sender, claim: ingest.open(sender=sender, claim=claim),
        tell=lambda told: _tell(audit, told),
        reported=lambda report: _report(data, report),
    )
    try:
        ports = _listen(listener, config.receive)
        _LOG.info("listening as %s, ports %s", config.receive.ae_title, ports)
        _beat(config, data, listener, ports, stop)
    finally:
        listener.stop()
        ingest.close()


def rules_of(receive: Receive) -> Rules:
    """Who may come in, as the listener knows it."""
    senders = tuple(Sender(ae_title=sender.ae_title, networks=sender.hosts) for sender in receive.senders)
    return Rules(
        ae_title=receive.ae_title,
        senders=senders,
        max_associations=receive.max_associations,
        idle_s=receive.idle_s,
        max_object_bytes=receive.max_object_bytes,
    )


def _listen(listener: Listener, receive: Receive) -> dict[str, int]:
    """Open what is configured: name -> port."""
    ports = {}
    if receive.port is not None:
        ports["dicom"] = listener.listen(receive.host, receive.port)
    if receive.tls is not None:
        files = TlsFiles(certificate=receive.tls.certificate, key=receive.tls.key, authority=receive.tls.authority)
        ports["dicom-tls"] = listener.listen(receive.host, receive.tls.port, tls=tls_context(files))
    return ports


def _report(data: DataFolder, report: Commitment) -> bool:
    """A target has committed itself to keep results, or not, on an association of its own."""
    with closing(open_database(data.database)) as database:
        return parcels.report(database, report.transaction_uid, committed=report.committed, failed=report.failed)


def _tell(audit: Audit, told: Told) -> None:
    times = told.times if told.times > 1 else None
    audit.write(f"association_{told.event}", sender=told.sender, reason=told.reason or None, times=times)


def _beat(config: Config, data: DataFolder, listener: Listener, ports: dict[str, int], stop: threading.Event) -> None:
    """Say every second how it goes; without room for another instance it is not well."""
    database = open_database(data.database)
    steady = steady_clock(database)
    while True:
        free = data.free_bytes()
        full = free < config.receive.reserve_bytes
        detail = {"ports": ports, "associations": listener.associations, "free_bytes": free}
        if full:
            detail["reason"] = "the disk has less room than receive.reserve_bytes"
        try:
            beat(database, steady, "receiver", "failing" if full else "ready", detail)
        except sqlite3.OperationalError as error:  # a full disk: senders are told, and it goes on when there is space
            _LOG.error("state.db takes nothing (%s)", error)
        if stop.wait(BEAT_S):
            break
    database.close()

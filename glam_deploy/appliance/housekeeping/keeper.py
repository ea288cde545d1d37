"""The role `keeper`: assembles complete studies into jobs; cleans the data folder in a second thread."""

import logging
import sqlite3
import threading
from contextlib import closing

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.housekeeping.cleaning import Retention, Sweep
from glam_deploy.appliance.state import studies
from glam_deploy.appliance.state.database import monotonic_clock, open_database
from glam_deploy.appliance.state.events import record_heartbeat

log = logging.getLogger(__name__)

POLL_S = 0.05
"""Between two checks for complete studies; part of the time from the last view to the results."""
HEARTBEAT_S = 1.0
CLEAN_S = 60.0


def run(config: Config, stop: threading.Event) -> None:
    """Assemble studies and clean up until `stop` is set. Raises UsageError if the data folder cannot be used."""
    data = DataFolder(root=config.data)
    data.make()
    cleaner = threading.Thread(target=_clean, args=(config, data, stop), name="cleaner")
    cleaner.start()
    try:
        with closing(open_database(data.database)) as connection:
            _assemble(config, connection, stop)
    finally:  # also after an exception, since the process would wait for the cleaner thread
        stop.set()
        cleaner.join()


def _assemble(config: Config, connection: sqlite3.Connection, stop: threading.Event) -> None:
    monotonic, next_beat = monotonic_clock(connection), 0.0
    while not stop.wait(POLL_S):
        try:
            studies.assemble_complete(connection, config.assemble, monotonic())
            if monotonic() >= next_beat:
                next_beat = monotonic() + HEARTBEAT_S
                record_heartbeat(connection, monotonic, "keeper", "ready", {})
        except sqlite3.OperationalError as error:  # a full disk: retry until there is space
            log.error("state.db cannot be written (%s)", error)
            stop.wait(HEARTBEAT_S)


def _clean(config: Config, data: DataFolder, stop: threading.Event) -> None:
    with closing(open_database(data.database)) as connection:
        monotonic = monotonic_clock(connection)
        sweep, retention = Sweep(data, connection), Retention(data, connection, config.retain, open_audit(data))
        while True:
            try:
                sweep(monotonic())
                retention(monotonic())
            except (OSError, sqlite3.OperationalError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                log.error("cleaning was interrupted (%s) and is retried", reason)
            if stop.wait(CLEAN_S):
                return

"""The keeper: assembles studies; sweeps and cleans the data folder beside it."""

import logging
import sqlite3
import threading
from contextlib import closing

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.keep.retention import Retention
from glam_deploy.appliance.keep.sweep import Sweep
from glam_deploy.appliance.state import studies
from glam_deploy.appliance.state.database import open_database
from glam_deploy.appliance.state.events import beat
from glam_deploy.appliance.state.steady import steady_clock

log = logging.getLogger(__name__)

LOOK_S = 0.05
"""Between two looks for complete studies: a part of the time from the last view to the results."""
BEAT_S = 1.0
CLEAN_S = 60.0


def run(config: Config, stop: threading.Event) -> None:
    """Keep house until `stop` is set. Raises UsageError where the data folder cannot be used."""
    data = DataFolder(root=config.data)
    data.make()
    cleaner = threading.Thread(target=_clean, args=(config, data, stop), name="cleaner")
    cleaner.start()
    try:
        with closing(open_database(data.database)) as connection:
            _assemble(config, connection, stop)
    finally:  # whatever ended it ends the process, which would wait for the cleaner
        stop.set()
        cleaner.join()


def _assemble(config: Config, connection: sqlite3.Connection, stop: threading.Event) -> None:
    steady, next_beat = steady_clock(connection), 0.0
    while not stop.wait(LOOK_S):
        try:
            studies.assemble_complete(connection, config.assemble, steady())
            if steady() >= next_beat:
                next_beat = steady() + BEAT_S
                beat(connection, steady, "keeper", "ready", {})
        except sqlite3.OperationalError as error:  # a full disk; it goes on when there is space
            log.error("state.db takes nothing (%s)", error)
            stop.wait(BEAT_S)


def _clean(config: Config, data: DataFolder, stop: threading.Event) -> None:
    with closing(open_database(data.database)) as connection:
        steady = steady_clock(connection)
        sweep, retention = Sweep(data, connection), Retention(data, connection, config.retain, open_audit(data))
        while True:
            try:
                sweep(steady())
                retention(steady())
            except (OSError, sqlite3.OperationalError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                log.error("cleaning stopped half-way (%s) and is tried again", reason)
            if stop.wait(CLEAN_S):
                return

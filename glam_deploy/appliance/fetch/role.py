"""The role `fetcher`: `fetch.at_once` threads that fetch, and the heartbeat."""

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from functools import partial

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import Config, Fetch
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.fetch.archive import archive_client
from glam_deploy.appliance.fetch.fetcher import Fetcher
from glam_deploy.appliance.fetch.windows import local_now
from glam_deploy.appliance.ingest import Ingest
from glam_deploy.appliance.process import RECURRING, watch_threads
from glam_deploy.appliance.state import fetches
from glam_deploy.appliance.state.database import monotonic_clock, open_database, record_heartbeat
from glam_deploy.appliance.state.fetches import FetchItem
from glam_deploy.appliance.targets import Backoff, TargetHealth
from glam_deploy.errors import UsageError

log = logging.getLogger(__name__)

POLL_S = 1.0
"""Between two checks for items; fetching is not urgent."""
DISK_RETRY_S = 5.0
STOP_S = 5.0
"""Time that the threads have to finish when the process stops; what is cut off is fetched again."""


def run(config: Config, stop: threading.Event, *, clock: Callable[[], datetime] = local_now) -> None:
    """Fetch until `stop` is set. `clock`: the local time.

    Raises UsageError if [fetch] is not configured or the data folder cannot be used, InternalError if a thread has
    ended.
    """
    fetch = config.fetch
    if fetch is None:
        raise UsageError("there is no archive to fetch from: add the table [fetch] to the configuration")
    data = DataFolder(root=config.data)
    data.make()
    ingest = Ingest(config, data, open_audit(data))
    with closing(ingest), closing(open_database(data.database)) as connection:
        if count := fetches.release_all(connection):
            log.info("%d items were interrupted and are continued", count)
        health: TargetHealth[FetchItem] = TargetHealth(
            backoff=Backoff(first_s=fetch.first_retry_s, longest_s=fetch.longest_retry_s)
        )

        def fetcher(connection: sqlite3.Connection) -> Fetcher:
            return _fetcher(config, fetch, connection, ingest=ingest, health=health, stop=stop, clock=clock)

        threads = [
            threading.Thread(target=_run_fetcher, args=(fetcher(open_database(data.database, one_thread=False)),))
            for _ in range(fetch.at_once)
        ]
        for thread in threads:
            thread.daemon = True
            thread.start()
        watch_threads(partial(_heartbeat, fetcher(connection)), threads, stop, stop_s=STOP_S)


def _fetcher(
    config: Config,
    fetch: Fetch,
    connection: sqlite3.Connection,
    *,
    ingest: Ingest,
    health: TargetHealth[FetchItem],
    stop: threading.Event,
    clock: Callable[[], datetime],
) -> Fetcher:
    return Fetcher(
        config=config,
        fetch=fetch,
        data=ingest.spool.data,
        connection=connection,
        monotonic=monotonic_clock(connection),
        client=archive_client(config, fetch),
        ingest=ingest,
        audit=ingest.audit,
        health=health,
        stop=stop,
        clock=clock,
    )


def _run_fetcher(fetcher: Fetcher) -> None:
    """Body of a thread."""
    stop = fetcher.stop
    with closing(fetcher.connection):
        while not stop.is_set():
            try:
                while fetcher.step() and not stop.is_set():
                    pass
                stop.wait(POLL_S)
            except sqlite3.OperationalError as error:  # a full disk: retry until there is space
                log.error("state.db cannot be written (%s)", error, extra=RECURRING)
                stop.wait(DISK_RETRY_S)


def _heartbeat(fetcher: Fetcher) -> None:
    """Write the state: ready, or waiting for the archive; the detail says why nothing is fetched."""
    health, now = fetcher.health, fetcher.monotonic()
    detail: dict[str, object] = {"archive": fetcher.fetch.place}
    if reason := health.reason or fetcher.why_paused():
        detail["reason"] = reason
    if health.reason and not health.may_try(now):
        detail["next_try_s"] = round(health.not_before - now)
    state = "waiting" if health.reason else "ready"
    record_heartbeat(fetcher.connection, fetcher.monotonic, "fetcher", state, detail)

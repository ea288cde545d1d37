"""The worker's signs of life, from a thread of their own: while the network computes, the lease is renewed."""

import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from glam_deploy.appliance.state import jobs
from glam_deploy.appliance.state.database import open_database
from glam_deploy.appliance.state.events import beat
from glam_deploy.appliance.state.jobs import Job
from glam_deploy.appliance.state.steady import Steady, steady_clock

log = logging.getLogger(__name__)

BEAT_S = 1.0

Said = tuple[str, Mapping[str, Any]]
"""State and details."""


class Heartbeat:
    """Says how the worker is and keeps its lease, until closed."""

    def __init__(self, database: Path, *, lease_s: float, longest_view_s: float, said: Said = ("starting", {})) -> None:
        """`longest_view_s`: a view that takes longer hangs; the process then kills itself, and its job goes on.
        `said`: how the worker is until it says something else.
        """
        self._database, self._lease_s, self._longest_view_s = database, lease_s, longest_view_s
        self._changed, self._end = threading.Event(), False
        self._said = said
        self._job: Job | None = None
        self._lost: Job | None = None
        self._view_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat")
        self._thread.start()

    def say(self, state: str, detail: Mapping[str, Any]) -> None:
        """How the worker is from now on: "starting", "ready" or "failing"; `detail` holds no identifier."""
        self._said = state, detail
        self._changed.set()

    def hold(self, job: Job | None) -> None:
        """Renew the lease on this job, and on no other, until told otherwise."""
        self._job = job

    def has_lost(self, job: Job) -> bool:
        """Whether this job has turned out to be somebody else's, or superseded."""
        return self._lost is job

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The network has one view, for as long as the block lasts."""
        self._view_since = time.monotonic()
        try:
            yield
        finally:
            self._view_since = None

    def close(self) -> None:
        self._end = True
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        with closing(open_database(self._database)) as connection:
            steady = steady_clock(connection)
            while not self._end:
                self._beat(connection, steady)
                self._kill_what_hangs()
                self._changed.wait(min(BEAT_S, self._lease_s / 4))
                self._changed.clear()
            self._beat(connection, steady)

    def _beat(self, connection: sqlite3.Connection, steady: Steady) -> None:
        try:
            beat(connection, steady, "worker", *self._said)
            if (job := self._job) and not jobs.renew(connection, job, steady() + self._lease_s):
                self._lost = job
        except sqlite3.OperationalError as error:  # a full disk; the lease may run out
            log.error("state.db takes nothing (%s)", error)

    def _kill_what_hangs(self) -> None:
        since = self._view_since
        if since is not None and time.monotonic() - since > self._longest_view_s:
            log.error("a view has taken more than %g s: the worker ends itself", self._longest_view_s)
            os.kill(os.getpid(), signal.SIGKILL)


def worker_name() -> str:
    """What a lease calls this process: host, process, and when that started, for numbers are used again."""
    return f"{os.uname().nodename} {os.getpid()} {_started(os.getpid())}"


def is_dead(name: str) -> bool:
    """Whether a worker was one of this host, and is no more."""
    host, pid, started = name.rsplit(" ", 2)
    return host == os.uname().nodename and _started(int(pid)) != started


def _started(pid: int) -> str:
    """Field 22 of proc(5): clock ticks from boot to the start of the process; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[19]
    except OSError:
        return ""

"""Heartbeats of the worker from a thread of its own, which also renews the lease while the network computes."""

import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glam_deploy.appliance.process import RECURRING
from glam_deploy.appliance.state import jobs
from glam_deploy.appliance.state.database import MonotonicClock, monotonic_clock, open_database, record_heartbeat
from glam_deploy.appliance.state.jobs import Job

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """The engine in use, for the status page."""

    engine: str | None
    precision: str | None
    library: str | None
    device: str | None
    gate: str
    bundle: str
    """Its id."""
    checkpoint: str
    """SHA-256."""
    patches: int
    version: str
    """Of glam-deploy."""


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """State of the worker; holds no identifier."""

    state: str
    """"starting", "ready" or "failing"."""
    reason: str = ""
    """Why it is failing."""
    engine: EngineFacts | None = None

    def to_json(self) -> dict[str, Any]:
        """The details in `state.db`: facts of the engine, or the reason."""
        return asdict(self.engine) if self.engine else {"reason": self.reason} if self.reason else {}


class Heartbeat:
    """Writes the worker's state and renews the lease on its job every second, until closed."""

    def __init__(self, database: Path, *, lease_s: float, longest_view_s: float, status: WorkerStatus) -> None:
        """`longest_view_s`: if a view takes longer, the process kills itself, and its job is reclaimed.

        `status`: the worker's state until `set_status` is called.
        """
        self._database, self._lease_s, self._longest_view_s = database, lease_s, longest_view_s
        self._changed, self._closing = threading.Event(), False
        self._status = status
        self._job: Job | None = None
        self._lost: Job | None = None
        self._view_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat")
        self._thread.start()

    def set_status(self, status: WorkerStatus) -> None:
        """Set the worker's state, which the next heartbeat writes."""
        self._status = status
        self._changed.set()

    def set_job(self, job: Job | None) -> None:
        """Set the job whose lease is renewed; None for none."""
        self._job = job

    def has_lost(self, job: Job) -> bool:
        """Whether the lease on this job was lost, or the job was superseded."""
        return self._lost is job

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Marks the time during which the network computes one view."""
        self._view_since = time.monotonic()
        try:
            yield
        finally:
            self._view_since = None

    def close(self) -> None:
        self._closing = True
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        with closing(open_database(self._database)) as connection:
            monotonic = monotonic_clock(connection)
            while not self._closing:
                self._heartbeat(connection, monotonic)
                self._kill_if_hung()
                self._changed.wait(min(HEARTBEAT_S, self._lease_s / 4))
                self._changed.clear()
            self._heartbeat(connection, monotonic)

    def _heartbeat(self, connection: sqlite3.Connection, monotonic: MonotonicClock) -> None:
        try:
            status = self._status
            record_heartbeat(connection, monotonic, "worker", status.state, status.to_json())
            if (job := self._job) and not jobs.renew(connection, job, monotonic() + self._lease_s):
                self._lost = job
        except sqlite3.OperationalError as error:  # a full disk: the lease may run out
            log.error("state.db cannot be written (%s)", error, extra=RECURRING)

    def _kill_if_hung(self) -> None:
        since = self._view_since
        if since is not None and time.monotonic() - since > self._longest_view_s:
            log.error("a view has taken more than %g s: the worker kills itself", self._longest_view_s)
            os.kill(os.getpid(), signal.SIGKILL)


def worker_name() -> str:
    """Name of this process in a lease: host, process id, and its start time because process ids are reused."""
    return f"{os.uname().nodename} {os.getpid()} {_start_ticks(os.getpid())}"


def is_dead(name: str) -> bool:
    """Whether the worker of this name ran on this host and has ended."""
    host, pid, started = name.rsplit(" ", 2)
    return host == os.uname().nodename and _start_ticks(int(pid)) != started


def _start_ticks(pid: int) -> str:
    """Field 22 of proc(5): clock ticks from boot to the start of the process; "" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[19]
    except OSError:
        return ""

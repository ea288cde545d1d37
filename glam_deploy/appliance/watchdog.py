"""Watchdog of the supervisor: kills role processes that hang, by their heartbeats in `state.db`.

The watchdog counts checks, not seconds. A check counts against a process only if another process has written a
heartbeat since the check before. So suspending the machine or changing its clock kills nothing, and neither does a
`state.db` to which no process can write (a full disk, a program that keeps it locked).
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.state import overview
from glam_deploy.appliance.state.events import last_heartbeats
from glam_deploy.errors import UsageError

log = logging.getLogger(__name__)

CHECK_S = 5.0
"""Seconds between two checks."""
MISSED_CHECKS = 60
"""Checks without a heartbeat after which a process counts as hung: 300 s, 20 times `events.HEARTBEAT_TIMEOUT_S`, longer
than any step of a role that writes no heartbeat."""


class WatchedProcess(Protocol):
    """What the watchdog needs of a role's process (`supervisor.RoleProcess`)."""

    role: str
    starts: int

    @property
    def is_running(self) -> bool: ...

    def kill(self) -> None: ...


class HangDetector:
    """Counts, for each process, the checks without a heartbeat."""

    def __init__(self, missed_checks: int = MISSED_CHECKS) -> None:
        self._missed_checks = missed_checks
        self._heartbeats: Mapping[str, float] = {}
        self._starts: Mapping[str, int] = {}
        self._missed: dict[str, int] = {}

    def check(self, heartbeats: Mapping[str, float], starts: Mapping[str, int]) -> list[str]:
        """Make one check; the names of the processes that hang now.

        `heartbeats`: name -> time of its last heartbeat. `starts`: name -> how often it was started. The count begins
        anew for a process that was restarted, and for one that was just reported as hung, since it may take a while to
        end.
        """
        active = {name for name in starts if name in heartbeats and heartbeats[name] != self._heartbeats.get(name)}
        restarted = {name for name in starts if starts[name] != self._starts.get(name)}
        for name in starts:
            if name in active | restarted:
                self._missed[name] = 0
            elif active:
                self._missed[name] += 1
        self._heartbeats, self._starts = dict(heartbeats), dict(starts)
        hung = [name for name in starts if self._missed[name] >= self._missed_checks]
        self._missed |= dict.fromkeys(hung, 0)
        return hung


class Watchdog:
    """Kills hung role processes, which the supervisor then restarts. Reads `state.db` without waiting for writers."""

    def __init__(self, data: DataFolder) -> None:
        """`data`: a data folder that has been made."""
        self._data, self._audit = data, open_audit(data)
        self._detector = HangDetector(MISSED_CHECKS)
        self._next = 0.0

    def __call__(self, now: float, processes: Sequence[WatchedProcess]) -> None:
        """Make a check if CHECK_S have passed since the last one; `now`: time.monotonic()."""
        if now < self._next:
            return
        self._next = now + CHECK_S
        try:
            with overview.open_read_only(self._data.database) as connection:
                heartbeats = last_heartbeats(connection)
        except (*overview.READ_ERRORS, UsageError):
            return
        hung = self._detector.check(heartbeats, {each.role: each.starts for each in processes if each.is_running})
        for process in processes:
            if process.role in hung:
                silent_s = MISSED_CHECKS * CHECK_S
                log.error("%s has written no heartbeat for %g s, while others did: killing it", process.role, silent_s)
                self._audit.write("role_killed", role=process.role, silent_s=silent_s)
                process.kill()

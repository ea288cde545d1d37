"""Steady time: seconds that only ever go forward, over changes of the clock, restarts and reboots.

Linux counts the time since boot for all processes alike; of each boot `state.db` holds what to add. The time that the
machine was off does not count, so that a deadline is never missed because of it, only later.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

Steady = Callable[[], float]
"""Gives the steady time now, in seconds."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def steady_clock(
    connection: sqlite3.Connection, *, boot_id: str | None = None, since_boot: Steady | None = None
) -> Steady:
    """The clock of this boot; the first one to ask after a boot writes its base, all others only read.

    `boot_id`, `since_boot`: of the machine unless a test says otherwise.
    """
    boot_id = boot_id or _BOOT_ID.read_text("ascii").strip()
    since_boot = since_boot or _since_boot
    base = _base(connection, boot_id, since_boot())
    return lambda: base + since_boot()


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _base(connection: sqlite3.Connection, boot_id: str, since_boot: float) -> float:
    """Such that now is no earlier than anything written before."""
    known = _known_base(connection, boot_id)
    if known is not None:
        return known
    with connection:
        connection.execute(
            "INSERT OR IGNORE INTO steady SELECT ?, max(0.0, coalesce(max(t), 0.0) - ?) FROM ("
            "SELECT max(touched) AS t FROM study UNION ALL SELECT max(beat) FROM component)",
            (boot_id, since_boot),
        )
    base = _known_base(connection, boot_id)
    assert base is not None
    return base


def _known_base(connection: sqlite3.Connection, boot_id: str) -> float | None:
    row = connection.execute("SELECT base FROM steady WHERE boot_id = ?", (boot_id,)).fetchone()
    return None if row is None else float(row[0])

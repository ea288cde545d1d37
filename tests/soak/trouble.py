"""What goes wrong during a soak: processes that are killed, a target that is away, a wall clock that jumps."""

import os
import random
import signal
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pacs.appliance import Appliance
from soak.wall_clock import WallClock
from support.orthanc import Orthanc, wait_for

ROLES = ("receiver", "web", "keeper", "worker", "dispatcher")
VICTIMS = (*ROLES, "reader", "supervisor")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
PAGES = ("/", "/studies", "/failures", "/metrics", "/health/ready")
START_S = 300
"""The longest that a process may take to be there again, on a machine with much else to do."""
JUMPS_S = (-86400, -3600, -40, 0, 40, 3600, 86400)


def processes(appliance: Appliance) -> dict[str, int]:
    """Name -> process: the supervisor, the roles, and the worker's reader of views."""
    assert appliance.process
    found = {"supervisor": appliance.process.pid}
    with suppress(FileNotFoundError):  # it has just ended
        found |= appliance.pids()
    readers = _children(found["worker"]) if "worker" in found else []
    return found | dict(zip(("reader",), readers, strict=False))


def _children(pid: int) -> list[int]:
    """Of all its threads; none where it has ended."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(child) for each in lists for child in each.split()]


@dataclass
class Trouble:
    """Threads that trouble one appliance; each ends with its event."""

    appliance: Appliance
    pacs: Orthanc
    clock: WallClock
    rng: random.Random
    every_s: float
    """Mean time between two kills; outages and jumps of the clock are as frequent."""
    kills: Counter[str] = field(default_factory=Counter)
    """By process and signal."""
    outages: int = 0
    jumps: int = 0

    def kill(self, stop: threading.Event) -> None:
        """Every process in turn, by either signal, in an order drawn by chance."""
        turns: list[tuple[str, signal.Signals]] = []
        while not stop.wait(self.rng.uniform(0.5, 1.5) * self.every_s):
            if not turns:
                turns = [(victim, how) for victim in VICTIMS for how in SIGNALS]
                self.rng.shuffle(turns)
            self._kill(*turns.pop())

    def _kill(self, victim: str, how: signal.Signals) -> None:
        pid = wait_for(lambda: processes(self.appliance).get(victim), f"the {victim} to live again", patience_s=START_S)
        with suppress(ProcessLookupError):
            os.kill(pid, how)
            self.kills[f"{victim} {how.name}"] += 1
        if victim == "supervisor":
            assert self.appliance.process
            self.appliance.process.wait(120)
            self.appliance.start(patience_s=START_S)

    def take_target_away(self, stop: threading.Event) -> None:
        while not stop.wait(4 * self.every_s):
            self.pacs.stop()
            self.outages += 1
            stop.wait(self.every_s)
            self.pacs.start()

    def move_clock(self, stop: threading.Event) -> None:
        while not stop.wait(self.every_s):
            self.clock.jump(self.rng.choice(JUMPS_S))
            self.jumps += 1
        self.clock.jump(0)


@dataclass
class Visitors:
    """A browser's and a monitoring system's requests."""

    appliance: Appliance
    every_s: float
    answers: Counter[str] = field(default_factory=Counter)
    """By path and status; "none" where no server answered."""

    def visit(self, stop: threading.Event) -> None:
        while not stop.wait(self.every_s):
            for path in (*PAGES, self._study()):
                self._get(path)

    def _get(self, path: str) -> None:
        name = "/study" if path.startswith("/study/") else path
        try:
            status: object = self.appliance.get(path).status_code
        except Exception as error:
            status = type(error).__name__
        self.answers[f"{name} {status}"] += 1

    def _study(self) -> str:
        rows = self.appliance.rows("SELECT pseudonym FROM study ORDER BY touched DESC LIMIT 1")
        return f"/study/{rows[0]['pseudonym']}" if rows else "/"

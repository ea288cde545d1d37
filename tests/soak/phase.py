"""One phase of a soak: an appliance and an Orthanc under load and in trouble, until all is delivered and removed."""

import gc
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pacs.appliance import Appliance
from soak import target
from soak.exams import Exams
from soak.plan import TROUBLED, Plan, small_disk
from soak.samples import Sample, Sampler
from soak.senders import Ledger, Modality
from soak.target import Arrived
from soak.trouble import START_S, Trouble, Visitors
from soak.wall_clock import WallClock
from support.orthanc import Orthanc, free_port, running, wait_for

VISIT_S = 2.0
PATIENCE_S = 900
"""For what was acknowledged to be delivered, and again to be removed."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What happened in a phase."""

    plan: Plan
    ledger: Ledger
    trouble: Trouble
    visitors: Visitors
    samples: list[Sample]
    """With load, and after it."""
    end: Sample
    """When all was delivered and had time to be removed."""
    loaded_s: float
    idle_s: float
    """Both since the beginning of the phase: the last view was sent, the last result delivered."""
    dead: int
    """Jobs and deliveries that were given up."""
    arrived: list[Arrived]

    @property
    def loaded(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.at_s <= self.loaded_s]

    @property
    def calm(self) -> list[Sample]:
        """Under load, but without kills, and after the last restarts."""
        start = TROUBLED * self.plan.seconds + self.plan.every_s
        return [sample for sample in self.loaded if sample.at_s >= start]


@dataclass
class Crew:
    """Threads that run until they are told to stop; an exception of one of them is raised at the end."""

    failed: list[BaseException] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def start(self, body: Callable[[threading.Event], None]) -> None:
        self.threads.append(threading.Thread(target=self._guarded, args=(body,)))
        self.threads[-1].start()

    def _guarded(self, body: Callable[[threading.Event], None]) -> None:
        try:
            body(self.stop)
        except BaseException as error:
            self.failed.append(error)

    def end(self) -> None:
        """Return when all have ended."""
        self.stop.set()
        for thread in self.threads:
            thread.join()
        if self.failed:
            raise self.failed[0]


def run(plan: Plan, folder: Path) -> Seen:
    """In a new folder, where the appliance's log stays. Raises AssertionError if the appliance does not go on."""
    folder.mkdir(parents=True)
    exams, clock = Exams(folder / "templates", full=plan.full), WallClock(folder)
    pacs = Orthanc(folder=folder / "orthanc", glam_port=free_port())
    with small_disk(folder / "disk") as disk, running(pacs):
        appliance = plan.appliance(disk, pacs, clock)
        try:
            appliance.start(patience_s=START_S)
            return Soak(plan, appliance, pacs, clock, exams).run()
        finally:
            _end(appliance)
            (folder / "log").write_text(appliance.log())


def _end(appliance: Appliance) -> None:
    """Stop it if it runs; kill it if that takes too long."""
    if appliance.process:
        with suppress(subprocess.TimeoutExpired):
            appliance.stop()
    if appliance.process:
        appliance.kill_all()


class Soak:
    """The threads of one phase."""

    def __init__(self, plan: Plan, appliance: Appliance, pacs: Orthanc, clock: WallClock, exams: Exams) -> None:
        self._plan, self._appliance, self._pacs, self._exams = plan, appliance, pacs, exams
        self._ledger, self._start = Ledger(), time.monotonic()
        self._trouble = Trouble(
            appliance=appliance, pacs=pacs, clock=clock, rng=random.Random(plan.seed), every_s=plan.every_s
        )
        self._visitors = Visitors(appliance=appliance, every_s=VISIT_S)
        self._sampler = Sampler(appliance=appliance, start=self._start)

    def run(self) -> Seen:
        """Load and trouble, then rest, then what has arrived."""
        watching = Crew()
        watching.start(self._visitors.visit)
        watching.start(self._sampler.watch)
        try:
            self._load()
            loaded_s = self._now()
            self._say("load has ended")
            self._appliance.wait_idle(patience_s=PATIENCE_S)
            idle_s = self._now()
            self._say("everything is delivered")
            dead = self._dead()
            self._rest()
            self._say("retention has ended")
        finally:
            watching.end()
        end = self._sampler.sample()
        self._pacs.stop()
        return Seen(
            plan=self._plan,
            ledger=self._ledger,
            trouble=self._trouble,
            visitors=self._visitors,
            samples=self._sampler.samples,
            end=end,
            loaded_s=loaded_s,
            idle_s=idle_s,
            dead=dead,
            arrived=target.results(self._pacs),
        )

    def _load(self) -> None:
        """Kills for a part of the time; outages, jumps of the clock and senders for all of it."""
        kills, others, senders = Crew(), Crew(), Crew()
        kills.start(self._trouble.kill)
        others.start(self._trouble.take_target_away)
        others.start(self._trouble.move_clock)
        for number in range(self._plan.senders):
            senders.start(self._modality(number).run)
        try:
            senders.stop.wait(TROUBLED * self._plan.seconds)
            kills.end()
            self._say("kills have ended")
            senders.stop.wait(max(0.0, self._plan.seconds - self._now()))
        finally:
            for crew in (senders, others, kills):
                crew.end()
            gc.collect()  # sockets of refused connections

    def _modality(self, number: int) -> Modality:
        return Modality(
            appliance=self._appliance,
            exams=self._exams,
            ledger=self._ledger,
            name=f"{self._plan.name}-{self._plan.seed}-{number}",
            rate=self._plan.rate and self._plan.rate / self._plan.senders,
            most_waiting=self._plan.most_waiting,
        )

    def _rest(self) -> None:
        """Until retention has removed everything; returns too when it does not."""
        query = "SELECT count(*) FROM study"
        with suppress(AssertionError):
            wait_for(lambda: not self._appliance.count(query), "retention", patience_s=PATIENCE_S)

    def _dead(self) -> int:
        queues = ("job", "parcel")
        return sum(self._appliance.count(f"SELECT count(*) FROM {queue} WHERE state = 'dead'") for queue in queues)

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _say(self, what: str) -> None:
        views = len(self._ledger.acknowledged)
        line = f"{self._plan.name}: {what} after {self._now():.0f} s, {views} views acknowledged\n"
        sys.stderr.write(line)
        sys.stderr.flush()

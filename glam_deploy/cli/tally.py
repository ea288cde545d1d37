"""How far a run is: counts, rate and remaining time, on a terminal and in plain lines."""

from collections import Counter
from dataclasses import dataclass, field
from time import monotonic

PLAIN_EVERY_S = 30.0
"""Seconds between two plain lines of progress, where there is no terminal."""

KEPT = "kept"
"""What becomes of an input that has a complete result of an earlier run; the others are as in a report."""


@dataclass
class Tally:
    """Of one run; written by one thread."""

    total: int
    """Inputs."""
    counts: Counter[str] = field(default_factory=Counter)
    """"done", "skipped", "failed" and KEPT -> inputs."""
    lacking: bool = False
    """An input failed because this machine lacks a package."""
    _began: float | None = None
    _told: float | None = None

    def begin(self) -> None:
        """An input is worked on, which no earlier run has done: the clock starts with the first."""
        if self._began is None:
            self._began = self._told = monotonic()

    def add(self, status: str) -> None:
        """An input came to its end."""
        self.counts[status] += 1

    @property
    def finished(self) -> int:
        return self.counts.total()

    @property
    def pace(self) -> str:
        """ "13.8/min 0:27:40 left", of the inputs that no earlier run has done; "" before the first has ended."""
        made = self.finished - self.counts[KEPT]
        if self._began is None or not made:
            return ""
        per_second = made / max(monotonic() - self._began, 1e-6)
        rate = f"{per_second:.1f}/s" if per_second >= 1 else f"{60 * per_second:.1f}/min"
        return f"{rate} {clock((self.total - self.finished) / per_second)} left"

    def plain_line(self) -> str:
        """A line of progress where one is due, else ""."""
        if self._told is None or monotonic() - self._told < PLAIN_EVERY_S or self.finished == self.total:
            return ""
        self._told = monotonic()
        return f"{self.finished} of {self.total} inputs, {self.pace}".rstrip(", ")

    def summary(self, *, resumed: bool) -> str:
        """Counts by what became of the inputs."""
        statuses = ("done", "skipped", "failed", *((KEPT,) if resumed else ()))
        return ", ".join(f"{self.counts[status]} {status}" for status in statuses)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 0:02:05."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"

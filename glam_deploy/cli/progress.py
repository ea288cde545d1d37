"""Progress of a run: counts, rate and remaining time, on a terminal and in plain lines."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import click
from rich.progress import Progress, TaskID

from glam_deploy.cli import console

log = logging.getLogger(__name__)

PLAIN_EVERY_S = 30.0
"""Seconds between two plain lines of progress, without a terminal."""

KEPT = "kept"
"""Status of an input with a complete result of an earlier run; the other statuses are those of a report."""


@dataclass
class Tally:
    """Counts of one run; written by one thread."""

    total: int
    """Number of inputs."""
    counts: Counter[str] = field(default_factory=Counter)
    """"done", "skipped", "failed" and KEPT -> number of inputs."""
    lacking: bool = False
    """Whether an input failed because this machine lacks a package."""
    _began: float | None = None
    _printed_at: float | None = None

    def begin(self) -> None:
        """Start the clock, with the first input that no earlier run has done."""
        if self._began is None:
            self._began = self._printed_at = monotonic()

    def add(self, status: str) -> None:
        """Count an input that has ended."""
        self.counts[status] += 1

    @property
    def finished(self) -> int:
        return self.counts.total()

    @property
    def pace(self) -> str:
        """Rate and remaining time of the inputs that no earlier run has done, "13.8/min 0:27:40 left"; "" at first."""
        made = self.finished - self.counts[KEPT]
        if self._began is None or not made:
            return ""
        per_second = made / max(monotonic() - self._began, 1e-6)
        rate = f"{per_second:.1f}/s" if per_second >= 1 else f"{60 * per_second:.1f}/min"
        return f"{rate} {clock((self.total - self.finished) / per_second)} left"

    def plain_line(self) -> str:
        """A line of progress, at most one each PLAIN_EVERY_S; else ""."""
        if self._printed_at is None or monotonic() - self._printed_at < PLAIN_EVERY_S or self.finished == self.total:
            return ""
        self._printed_at = monotonic()
        return f"{self.finished} of {self.total} inputs, {self.pace}".rstrip(", ")

    def summary(self, *, resumed: bool) -> str:
        """Number of inputs by status, in one line."""
        statuses = ("done", "skipped", "failed", *((KEPT,) if resumed else ()))
        return ", ".join(f"{self.counts[status]} {status}" for status in statuses)


class ProgressDisplay:
    """Progress of a run on the terminal: the bar, a line for each input, and plain lines without a terminal."""

    def __init__(self, tally: Tally, bar: Progress, *, first: Path, out: Path, as_json: bool) -> None:
        """`first`: the first input; `out`: folder of the results; `as_json`: whether the lines of inputs are JSON."""
        self.tally, self._bar, self._out, self._as_json = tally, bar, out, as_json
        self._task: TaskID = bar.add_task(first.name, total=tally.total, pace="")
        self._explained: set[str] = set()

    def begin(self, path: Path) -> None:
        """Show the input whose work begins."""
        self._bar.update(self._task, description=path.name, refresh=True)

    def explain_repeat(self, difference: str) -> None:
        """Print once why existing results are not kept; "" prints nothing."""
        if difference and difference not in self._explained:
            self._explained.add(difference)
            self.remark(f"Results in {self._out} were made with {difference}: their inputs are done again.")

    def remark(self, text: str) -> None:
        """Print a line on standard error."""
        with console.paused(self._bar):
            console.err.print(text, soft_wrap=True)

    def end(self, status: str, lines: Sequence[str]) -> None:
        """Count an input that has ended, and print its lines on standard output."""
        self.tally.add(status)
        log.info("input %d of %d: %s", self.tally.finished, self.tally.total, status)
        self._bar.update(self._task, advance=1, pace=self.tally.pace)
        if lines:
            with console.paused(self._bar):
                click.echo(lines[0]) if self._as_json else console.out.print(*lines, sep="\n", soft_wrap=True)
        plain = not (console.err.is_interactive or self._as_json)
        if plain and (line := self.tally.plain_line()):
            console.err.print(line, soft_wrap=True)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 0:02:05."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"

"""Times of calls on the host, and the statistics of many of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np

T = TypeVar("T")

SETTLING = 0.2
"""Share of a long run at its beginning in which memory may still grow: pools fill, libraries load on first use."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """How often something is run: `at_least` times, then on until `at_most` times or `seconds`."""

    warm_up: int = 10
    warm_up_s: float = 0.2
    """Both are reached before anything is timed: an idle card needs a while to raise its clocks."""
    at_least: int = 20
    at_most: int = 400
    seconds: float = 2.0

    def goes_on(self, done: int, start: float) -> bool:
        """Whether another run is due after `done` runs; `start`: of the first, on the clock of `perf_counter`."""
        return done < self.at_least or (done < self.at_most and perf_counter() - start < self.seconds)

    @classmethod
    def exactly(cls, count: int, *, warm_up: int = 1, warm_up_s: float = 0.0) -> "Runs":
        """`count` runs, however long they take."""
        return cls(warm_up=warm_up, warm_up_s=warm_up_s, at_least=count, at_most=count)


QUICK = Runs(warm_up=2, warm_up_s=0, at_least=3, at_most=10, seconds=0.5)


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Milliseconds of one call, and its result."""
    start = perf_counter()
    result = call()
    return (perf_counter() - start) * 1e3, result


def warm_up(call: Callable[[], object], runs: Runs) -> None:
    """Call until clocks are up and everything that is loaded on first use is loaded."""
    done, start = 0, perf_counter()
    while done < runs.warm_up or perf_counter() - start < runs.warm_up_s:
        call()
        done += 1


def host_ms(call: Callable[[], object], runs: Runs) -> list[float]:
    """Milliseconds of each run of a call that waits for its own result, after a warm-up."""
    warm_up(call, runs)
    times: list[float] = []
    begin = perf_counter()
    while runs.goes_on(len(times), begin):
        times.append(timed(call)[0])
    return times


def percentiles(milliseconds: Sequence[float], wanted: Sequence[int]) -> list[float]:
    """Percentiles of many runs, interpolated linearly."""
    return [float(value) for value in np.percentile(milliseconds, wanted)]


def spread(milliseconds: Sequence[float]) -> dict[str, float]:
    """{"p50", "p90", "p99", "best", "runs"} of many runs of one thing."""
    p50, p90, p99 = percentiles(milliseconds, (50, 90, 99))
    return {"p50": p50, "p90": p90, "p99": p99, "best": min(milliseconds), "runs": len(milliseconds)}


def growth(done: Sequence[int], used: Sequence[float]) -> float | None:
    """How much `used` grew over a whole run, by a straight line through the readings after it had settled.

    `done`: units of work done at each reading, rising; `used`: what was read there. The result has the unit of `used`;
    it is None where fewer than three readings are left.
    """
    settled = [(d, u) for d, u in zip(done, used, strict=True) if d >= SETTLING * done[-1]] if done else []
    if len(settled) < 3:
        return None
    x, y = np.array(settled, np.float64).T
    slope = np.polyfit(x - x.mean(), y, 1)[0]
    return float(slope * (x[-1] - x[0]))

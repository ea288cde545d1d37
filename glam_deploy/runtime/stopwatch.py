"""Wall time of the steps of one call."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """Wall time of named steps, in milliseconds, in the order of their first start; a step may be timed in parts."""

    def __init__(self) -> None:
        self.times_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.add({step: (perf_counter() - start) * 1e3})

    def add(self, times_ms: Mapping[str, float]) -> None:
        """Count what another watch has measured, too."""
        for step, spent in times_ms.items():
            self.times_ms[step] = self.times_ms.get(step, 0.0) + spent

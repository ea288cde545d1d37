"""Views under way: ready for the network, and in it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from glam_deploy.records import Facts, NetworkInput, PlacedView
from glam_deploy.runtime.chain import Flight
from glam_deploy.runtime.result import Result, result_of
from glam_deploy.runtime.stopwatch import Stopwatch

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What `Pipeline.prepare` gives: a view on which the host has done its part."""

    view: PlacedView | NetworkInput
    times_ms: Mapping[str, float]
    """What that took, by step."""


class Pending:
    """What `Pipeline.submit` gives. On a GPU the work goes on by itself; on a CPU it is done already."""

    def __init__(self, flight: Flight, clock: Stopwatch, provenance: Facts) -> None:
        self._flight = flight
        self._clock = clock
        self._provenance = provenance

    @cached_property
    def results(self) -> list[Result]:
        """Of all views that run together, in their order. Waits for them; raises BackendRunError."""
        findings, times = self._flight(), self._clock.times_ms
        count = len(findings.inputs)
        made = [result_of(findings, n, timings_ms=times, provenance=self._provenance) for n in range(count)]
        for result in made:
            _log(result)
        return made

    def result(self) -> Result:
        """Of the one view. Waits for it; raises BackendRunError."""
        return self.results[0]


def _log(result: Result) -> None:
    """Never what a view is called, of whom it is, or what was found: a log is read by more people than a report."""
    if log.isEnabledFor(logging.DEBUG):
        steps = ", ".join(f"{step} {ms:.0f} ms" for step, ms in result.timings_ms.items())
        codes = ", ".join(notice.code for notice in result.notices) or "none"
        log.debug("one view of kind %s: %s; notices: %s", result.input.source.kind, steps, codes)

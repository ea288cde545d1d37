"""Views under way: ready for the network, and in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from glam_deploy.records import NetworkInput, PlacedView
from glam_deploy.runtime.chain import Flight
from glam_deploy.runtime.result import Result, result_of
from glam_deploy.runtime.stopwatch import Stopwatch


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What `Pipeline.prepare` gives: a view on which the host has done its part."""

    view: PlacedView | NetworkInput
    times_ms: Mapping[str, float]
    """What that took, by step."""


class Pending:
    """What `Pipeline.submit` gives. On a GPU the work goes on by itself; on a CPU it is done already."""

    def __init__(self, flight: Flight, clock: Stopwatch, provenance: Mapping[str, Any]) -> None:
        self._flight = flight
        self._clock = clock
        self._provenance = provenance

    @cached_property
    def results(self) -> list[Result]:
        """Of all views that run together, in their order. Waits for them; raises BackendRunError."""
        findings, times = self._flight(), self._clock.times_ms
        return [
            result_of(findings, n, timings_ms=times, provenance=self._provenance) for n in range(len(findings.inputs))
        ]

    def result(self) -> Result:
        """Of the one view. Waits for it; raises BackendRunError."""
        return self.results[0]

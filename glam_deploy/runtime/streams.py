"""Choice of the number of streams of a CPU engine: the fastest of those that were measured on a few views."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle, islice
from time import perf_counter
from typing import Any, Literal, Protocol

from glam_deploy.runtime.pipeline import Image

log = logging.getLogger(__name__)

FEWEST_INPUTS = 32
"""Number of inputs below which a measurement, of up to a dozen views, would take longer than it saves."""
SAMPLE = 4
"""Number of different views that are measured."""
WORTH_IT = 1.03
"""Least ratio of the rates of more and of fewer streams for which more are taken: a single view takes longer in one of
several streams, and differences below are within the noise of a few views."""


@dataclass(frozen=True, kw_only=True)
class StreamsChoice:
    """The chosen number of streams, and the rates from which it follows."""

    chosen: int
    views_per_s: Mapping[int, float]
    """Number of streams -> measured rate; empty if there were too few inputs for a measurement."""

    @property
    def facts(self) -> dict[str, Any]:
        """As JSON values, for the provenance of results."""
        rates = {str(n): round(rate, 3) for n, rate in self.views_per_s.items()}
        return {"chosen": self.chosen, "views_per_s": rates}

    def __str__(self) -> str:
        if not self.views_per_s:
            return f"streams auto: {self.chosen}, because there are too few inputs for a measurement"
        rates = ", ".join(f"{rate:.2f} views/s with {n}" for n, rate in self.views_per_s.items())
        return f"streams auto: {self.chosen} ({rates})"


class Measured(Protocol):
    """What is measured of a `Pipeline`."""

    def map(self, images: Sequence[Any], /, *, errors: Literal["return"]) -> Iterator[Any]: ...


def choose_streams(
    open_pipeline: Callable[[int], AbstractContextManager[Measured]],
    images: Sequence[Image],
    *,
    cores: int,
    clock: Callable[[], float] = perf_counter,
) -> StreamsChoice:
    """Measure 1, 2, 4, ... streams, up to `cores`, as long as more are faster by WORTH_IT; the last that were.

    `open_pipeline`: opens the pipeline with a number of streams. `images`: views to measure with, repeated as often as
    needed, also those that cannot be used; none gives 1 stream without a measurement. `clock`: time in seconds.
    """
    chosen, rates = 1, dict[int, float]()
    streams = 1
    while images and streams <= cores:
        rates[streams] = _rate(open_pipeline, images, streams, clock)
        if streams > 1 and rates[streams] < WORTH_IT * rates[chosen]:
            break
        chosen, streams = streams, 2 * streams
    choice = StreamsChoice(chosen=chosen, views_per_s=rates)
    log.info("%s", choice)
    return choice


def _rate(
    open_pipeline: Callable[[int], AbstractContextManager[Measured]],
    images: Sequence[Image],
    streams: int,
    clock: Callable[[], float],
) -> float:
    """Views per second: of two views for each stream, and of SAMPLE at least, after one for each stream to warm up."""
    with open_pipeline(streams) as pipeline:
        count, endless = max(SAMPLE, 2 * streams), cycle(images)
        for _ in pipeline.map(list(islice(endless, streams)), errors="return"):
            pass
        began = clock()
        for _ in pipeline.map(list(islice(endless, count)), errors="return"):
            pass
        return count / (clock() - began)

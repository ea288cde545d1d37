"""Times on the GPU and on the host."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Graph, Stream

Work = Callable[[], object]
"""Puts work into the stream that is timed."""

TOGETHER = 10
"""Runs in flight at once: while one computes the host has long put in the next, so no gap is timed."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """How often something is run: at least so often, and on until it was often enough or has taken long enough."""

    warm_up: int = 10
    warm_up_s: float = 0.2
    """Both are reached before anything is timed: an idle card needs a while to raise its clocks."""
    at_least: int = 20
    at_most: int = 400
    seconds: float = 2.0

    def goes_on(self, done: int, start: float) -> bool:
        """Whether another run is due; `start` as `perf_counter` counts."""
        return done < self.at_least or (done < self.at_most and perf_counter() - start < self.seconds)


QUICK = Runs(warm_up=2, warm_up_s=0, at_least=3, at_most=10, seconds=0.5)


class Timer:
    """Times what is put into one stream."""

    def __init__(self, gpu: Gpu, stream: Stream) -> None:
        self.stream = stream
        self._pairs = [(gpu.event(timing=True), gpu.event(timing=True)) for _ in range(TOGETHER)]

    def on_gpu(self, work: Work, runs: Runs) -> list[float]:
        """Milliseconds between the events before and after each run, runs queued one behind the other."""
        self._warm_up(work, runs)
        pairs = self._pairs[: runs.at_most]
        times: list[float] = []
        start = perf_counter()
        while runs.goes_on(len(times), start):
            for before, after in pairs:
                self.stream.record(before)
                work()
                self.stream.record(after)
            self.stream.synchronize()
            times += [after.milliseconds_since(before) for before, after in pairs]
        return times

    def on_host(self, work: Work, runs: Runs) -> list[float]:
        """Milliseconds from the call until all of it is done, one run at a time."""
        self._warm_up(work, runs)
        return [total for _, total in self._alone(work, runs)]

    def to_return(self, work: Work, runs: Runs) -> list[float]:
        """Milliseconds until the call returns, with nothing before it in the stream."""
        self._warm_up(work, runs)
        return [returned for returned, _ in self._alone(work, runs)]

    def per_launch_us(self, work: Work, *, times: int = 50, repeats: int = 9, before: Work | None = None) -> float:
        """Microseconds of something short: `times` of it in one CUDA graph, the median of `repeats` such graphs.

        `before` is put in ahead of each, and what it costs by itself is taken off.
        """
        whole = self._graph_ms(work, times, repeats, before)
        idle = self._graph_ms(before, times, repeats, None) if before else 0.0
        return (whole - idle) / times * 1e3

    def _graph_ms(self, work: Work, times: int, repeats: int, before: Work | None) -> float:
        works = [work] if before is None else [before, work]
        work()
        self.stream.synchronize()
        graph = recorded(self.stream, lambda: [one() for one in works * times])
        try:
            return median(self.on_gpu(lambda: graph.launch(self.stream), _exactly(repeats)))
        finally:
            graph.close()

    def _warm_up(self, work: Work, runs: Runs) -> None:
        def once() -> None:
            work()
            self.stream.synchronize()

        warm_up(once, runs)

    def _alone(self, work: Work, runs: Runs) -> list[tuple[float, float]]:
        """(until the call returned, until the work was done) of each run."""
        times: list[tuple[float, float]] = []
        begin = perf_counter()
        while runs.goes_on(len(times), begin):
            start = perf_counter()
            work()
            returned = perf_counter()
            self.stream.synchronize()
            times.append(((returned - start) * 1e3, (perf_counter() - start) * 1e3))
        return times


def warm_up(call: Callable[[], object], runs: Runs) -> None:
    """Call until the card is at its clocks and everything that is loaded on first use is there."""
    done, start = 0, perf_counter()
    while done < runs.warm_up or perf_counter() - start < runs.warm_up_s:
        call()
        done += 1


def recorded(stream: Stream, work: Work) -> Graph:
    """Work as a CUDA graph. It must have run before: a first run loads what no graph can hold."""
    with stream.capture() as graph:
        work()
    return graph


def host_ms(call: Callable[[], object], runs: Runs) -> list[float]:
    """Milliseconds of a call that waits for its own result."""
    warm_up(call, runs)
    times: list[float] = []
    begin = perf_counter()
    while runs.goes_on(len(times), begin):
        start = perf_counter()
        call()
        times.append((perf_counter() - start) * 1e3)
    return times


def _exactly(count: int) -> Runs:
    return Runs(warm_up=2, warm_up_s=0.05, at_least=count, at_most=count)

"""Times of work in a CUDA stream, by events on the GPU and by the clock of the host."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

from glam_bench.clock import Runs, warm_up
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Graph, Stream

Work = Callable[[], object]
"""Enqueues work in the stream that is timed."""

TOGETHER = 10
"""Runs in flight at once: the host enqueues the next while one computes, so that no gap is timed."""


class Timer:
    """Times what is enqueued in one stream."""

    def __init__(self, gpu: Gpu, stream: Stream) -> None:
        self.stream = stream
        self._pairs = [(gpu.event(timing=True), gpu.event(timing=True)) for _ in range(TOGETHER)]

    def on_gpu(self, work: Work, runs: Runs) -> list[float]:
        """Milliseconds between the events before and after each run; runs are queued one behind the other."""
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
        """Microseconds of short work: `times` of it in one CUDA graph, the median of `repeats` runs of that graph.

        `before` is enqueued ahead of each; the time that it takes by itself is subtracted.
        """
        whole = self._graph_ms(work, times, repeats, before)
        idle = self._graph_ms(before, times, repeats, None) if before else 0.0
        return (whole - idle) / times * 1e3

    def _graph_ms(self, work: Work, times: int, repeats: int, before: Work | None) -> float:
        works = [work] if before is None else [before, work]
        work()
        self.stream.synchronize()
        runs = Runs.exactly(repeats, warm_up=2, warm_up_s=0.05)
        graph = recorded(self.stream, lambda: [one() for one in works * times])
        try:
            return median(self.on_gpu(lambda: graph.launch(self.stream), runs))
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


def recorded(stream: Stream, work: Work) -> Graph:
    """Work as a CUDA graph. It must have run once before, because a first run may allocate and load modules."""
    with stream.capture() as graph:
        work()
    return graph

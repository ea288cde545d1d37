"""The ladder: each rung in a process that stays alive, and one window of runs of each in turn, A B C A B C."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from glam_bench import meters
from glam_bench.images import image_name, standardized
from glam_bench.ladder import rungs, windows
from glam_bench.ladder.live import Live, measured, unavailable
from glam_bench.ladder.rungs import RungPlan
from glam_bench.ladder.settings import BenchContext, Settings
from glam_bench.parity import read_answers
from glam_bench.schema import Memory, Rung
from glam_bench.worker import Start, Tell, Worker
from glam_deploy.bundle import open_bundle
from glam_deploy.engines import selection
from glam_deploy.errors import BackendError, BackendRunError, BackendUnavailable, counted
from glam_deploy.networks import NetworkSpec

QUICK_MS = 500.0
"""A window of runs shorter than this begins with one that is not timed, because other rungs have used the caches."""
MOST_SLOWER = 20
"""A window that takes so many times the expected time hangs."""


def run(context: BenchContext) -> None:
    """All rungs of the plan, on the standardized images of the exam. Raises what `Ladder.climb` raises."""
    settings = context.options
    images = standardized(settings.images[: settings.pace.images], settings.work)
    network = open_bundle(settings.bundle).network
    ladder = Ladder(settings, images, settings.work, context.start, context.tell, network=network)
    context.add(images=[image_name(path) for path in images], rungs=ladder.climb(rungs.plan(settings)))


class Ladder:
    """Measures rungs in turns. A rung that fails is unavailable, with the reason; the others go on."""

    def __init__(
        self, settings: Settings, images: Sequence[Path], work: Path, start: Start, tell: Tell, *, network: NetworkSpec
    ) -> None:
        self._settings, self._network, self._images, self._work = settings, network, images, work
        self._start_child, self._tell = start, tell
        self._live: dict[str, Live] = {}
        self._lost: dict[str, str] = {}
        self._meter, self._gpu_meter = meters.EnergyMeter(), meters.GpuEnergy()
        self._began = perf_counter()

    def climb(self, plans: Sequence[RungPlan]) -> list[Rung]:
        """Every rung, in the order of `plans`.

        Raises BackendError where an engine that was asked for cannot run: before anything is measured, if it cannot
        be opened.
        """
        with ExitStack() as stack:
            self._open_all(plans, stack)
            self._each(self._answer)
            self._rounds()
            self._each(self._memory)
        return [self._rung(plan) for plan in plans]

    def _open_all(self, plans: Sequence[RungPlan], stack: ExitStack) -> None:
        """Rungs that were asked for come first: where one cannot run, no other is opened."""
        for plan in sorted(plans, key=lambda plan: not plan.asked):
            try:
                self._attempt(plan, lambda plan=plan: self._open(plan, stack))  # type: ignore[misc]
            except BackendUnavailable as error:
                raise BackendUnavailable(f"{plan.key!r} cannot run here: {error} {selection.could_run()}") from error

    def _open(self, plan: RungPlan, stack: ExitStack) -> None:
        worker, opened, first_ms = self._begin(plan)
        cold_ms = None
        if self._settings.pace.second_start:
            worker.close()
            worker, again, cold_ms = self._begin(plan)
            opened = {**again, "build_s": opened["build_s"]}
        stack.callback(worker.close)
        self._live[plan.key] = Live(
            plan=plan, worker=worker, opened=opened, first_start_ms=first_ms, cold_start_ms=cold_ms
        )

    def _begin(self, plan: RungPlan) -> tuple[Worker, dict[str, Any], float]:
        """A child that has opened a rung, its reply, and the milliseconds from its start to its first result."""
        self._tell(f"{plan.name}: starting")
        settings = self._settings
        worker = self._start_child(self._work / f"{plan.key}.log")
        try:
            opened = worker.ask(
                "open",
                within_s=plan.open_s,
                plan=plan.as_json(),
                bundle=str(settings.bundle),
                patches=settings.patches,
                threads=settings.threads,
                images=[str(image) for image in self._images],
            )
        except BaseException:
            worker.close()
            raise
        return worker, opened, (perf_counter() - worker.started) * 1e3

    def _answer(self, live: Live) -> None:
        """Results for all images, which is also a warm-up."""
        self._tell(f"{live.plan.name}: answers for {counted(len(self._images), 'image')}")
        folder = self._work / f"answers.{live.plan.key}"
        folder.mkdir()
        reply = live.worker.ask("answer", within_s=live.plan.open_s * len(self._images), folder=str(folder))
        live.run_ms = median(reply["ms"] or [live.opened["first_run_ms"]])
        live.answers = read_answers(folder)
        if not all(np.isfinite(values).all() for answer in live.answers for values in answer.values()):
            raise BackendRunError("its results have NaN or infinite values")

    def _rounds(self) -> None:
        """Rounds until all rungs are stable, or the most windows or the time is reached."""
        pace = self._settings.pace
        for number in range(pace.most_windows):
            began = perf_counter()
            self._tell(f"round {number + 1}")
            self._each(self._window)
            now = perf_counter()
            late = now + (now - began) > self._began + 60 * self._settings.minutes
            steady = all(windows.is_stable(live.windows) for live in self._live.values())
            if number + 1 >= pace.least_windows and (steady or late):
                break

    def _window(self, live: Live) -> None:
        pace = self._settings.pace
        if pace.first_counts:
            reply = live.worker.ask("first", within_s=60)
            live.windows.append(reply["ms"])
            live.stages.append(reply["stages"])
            return
        runs = min(max(ceil(pace.window_s * 1e3 / live.run_ms), pace.least_runs), pace.most_runs)
        warm_up = int(live.run_ms < QUICK_MS)
        limit = 60 + MOST_SLOWER * runs * live.run_ms / 1e3
        clock, joules = meters.clock_mhz(), self._joules()
        reply = live.worker.ask("window", within_s=limit, warm_up=warm_up, runs=runs)
        used, after = self._joules(), meters.clock_mhz()
        live.windows.append(reply["ms"])
        live.stages.append(reply["stages"])
        for name, start, end in zip(live.joules, joules, used, strict=True):
            if start is not None and end is not None:
                live.joules[name].append((end - start) / (runs + warm_up))
        if clock is not None and after is not None:
            live.clocks.append((clock, after))

    def _joules(self) -> tuple[float | None, float | None]:
        """Energy that processor packages and GPU have drawn by now."""
        return self._meter.joules(), self._gpu_meter.joules()

    def _memory(self, live: Live) -> None:
        found = live.worker.ask("memory", within_s=60)
        live.memory = Memory(rss=found["rss"], device=found["device"])

    def _each(self, step: Callable[[Live], None]) -> None:
        for live in list(self._live.values()):
            self._attempt(live.plan, lambda live=live: step(live))  # type: ignore[misc]

    def _attempt(self, plan: RungPlan, step: Callable[[], None]) -> None:
        try:
            step()
        except BackendError as error:
            if plan.asked:
                raise
            self._live.pop(plan.key, None)
            self._lost[plan.key] = str(error)

    def _rung(self, plan: RungPlan) -> Rung:
        if plan.key in self._lost:
            return unavailable(plan, self._lost[plan.key])
        names = [image_name(image) for image in self._images]
        return measured(self._live[plan.key], self._live, names, self._network)

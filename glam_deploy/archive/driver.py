"""The run: entries of a source -> stations -> rows of the data set."""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from glam_deploy import __version__
from glam_deploy.archive.actors import PredictorFacts, Refusal
from glam_deploy.archive.cluster import Node, actor_environment, nodes
from glam_deploy.archive.dataset import Dataset, marker_in, writing
from glam_deploy.archive.feed import Feed
from glam_deploy.archive.objects import NO_DICOM, prepared
from glam_deploy.archive.plan import RunPlan, partition
from glam_deploy.archive.reader import Fingerprint
from glam_deploy.archive.recorder import Recorder
from glam_deploy.archive.rows import FAILED, KEPT, Finding, Maker, entry_id
from glam_deploy.archive.shipping import files_of
from glam_deploy.archive.sources.base import Entry, SourceUnavailable
from glam_deploy.archive.station import QUEUE, Pending, ReaderSlot, Station, StationPlan, Step, Task
from glam_deploy.errors import BackendRunError, BackendUnavailable, GlamError, UsageError

MOST_DEATHS = 2
"""Processes that may end while one entry is alone in them, before it counts as the cause."""
MOST_FAILURES = 3
"""Processes of a station that may end one after another without a result and without an entry that may be the cause."""
MOST_CAUSES = 20
"""Entries that may be recorded one after another as the cause of an end, without a result between them."""


class Driver:
    """One run. `progress` is called after each change of `counts`."""

    def __init__(
        self,
        ray: Any,
        plan: RunPlan,
        *,
        shared: bool = False,
        progress: Callable[["Driver"], None] = lambda driver: None,
    ) -> None:
        """`shared`: whether Ray has other nodes than this machine, which get the files of the bundle."""
        self._shared = shared
        self._ray, self._plan, self._progress = ray, plan, progress
        self.counts: Counter[str] = Counter()
        """Outcome or KEPT -> number of entries."""
        self.without_objects = 0
        """Number of instances with a result, but without the DICOM objects that were asked for."""
        self.ambiguous = 0
        """As that of the data set, once the run has ended."""
        self.unlimited = ""
        """Which limits the decoders of one node at least have not got, and why; "" if all have them."""
        self.partition = ""
        """Digest of the run, known after its first station has opened."""
        self.maker: Maker | None = None
        self.repaired: tuple[str, ...] = ()
        self.lost = 0
        """As those of the data set."""
        self._stations: list[Station] = []
        self._pending: dict[Any, Pending] = {}
        self._again: deque[Task] = deque()
        self._suspects: deque[Task] = deque()
        self._taken = self._causes = 0
        self._ending: GlamError | None = None
        self._feed: Feed | None = None
        self._refreshed = self._flushed = time.monotonic()

    @property
    def total(self) -> int | None:
        """Number of entries of the source, or as many as the limit admits; None while they are counted."""
        total = None if self._feed is None else self._feed.total
        if total is None or self._plan.limit is None:
            return total
        return min(total, self.counts[KEPT] + self._plan.limit)

    @property
    def passed_over(self) -> int:
        """Number of files that were listed, but are no images."""
        return 0 if self._feed is None else self._feed.passed_over

    def run(self) -> Counter[str]:
        """Process all entries; their counts.

        What is finished is recorded, however the run ends. Raises SourceUnavailable if the source cannot be reached,
        UsageError if the result cannot be written, and the error of an engine that cannot be opened.
        """
        with marker_in(self._plan.dest) if self._plan.write else nullcontext() as marker:
            files = self._ray.put(files_of(self._plan.bundle.folder)) if self._shared else None
            self._station_plan = StationPlan(
                bundle=self._plan.bundle,
                engine=self._plan.engine,
                opener=self._plan.opener,
                reader=self._plan.reader,
                marker=marker,
                write=self._plan.write,
                environment={} if self._shared else actor_environment(),
                files=files,
                readers=self._plan.readers,
            )
            try:
                self._refresh()
                self._require_cores()
                while self.maker is None:
                    self._wait()
                self._process(self.maker)
            finally:
                for station in self._stations:
                    station.close()
        if self._ending is not None:
            raise self._ending
        return self.counts

    def _process(self, maker: Maker) -> None:
        plan = self._plan
        self._objects = plan.objects(self.partition)
        self.dataset = Dataset(plan.dest, self.partition, plan.identifiers, plan.kept(self.partition))
        with self.dataset, Feed(plan.source) as self._feed:
            self.repaired, self.lost = self.dataset.repaired, self.dataset.lost
            if self._objects:
                with writing(plan.dest):
                    self._objects = prepared(self._objects, plan.dest)
            self.dataset.apply_condition(plan.condition)
            self._recorder = Recorder(self.dataset, plan.identifiers, maker, self._count, self._again.append)
            try:
                self._loop(self._feed)
            finally:
                self.dataset.flush()
                self.lost, self.ambiguous = self.dataset.lost, self.dataset.ambiguous

    def _loop(self, feed: Feed) -> None:
        while True:
            for station in self._stations:
                self._fill(station)
            more = self._ending is None and not (feed.ended or self._taken == self._plan.limit)
            if not (more or self._again or self._suspects or any(station.load for station in self._stations)):
                return
            self._wait()
            if self.dataset.unsaved >= self._plan.flush_rows or time.monotonic() - self._flushed > self._plan.flush_s:
                self.dataset.flush()
                self._flushed = time.monotonic()

    def _fill(self, station: Station) -> None:
        """Give a station entries to read, and views to compute."""
        alone = any(task.suspect for task in station.tasks)
        slots = [slot for slot in station.slots if slot.is_ready]
        if self._suspects and station.facts and slots and not station.load:
            suspect = self._suspects.popleft()
            self._expect(station.identify(slots[0], suspect), Step.IDENTIFIED, station, slots[0], suspect)
            return
        # the first station runs empty for them
        drains = bool(self._suspects) and station is self._stations[0]
        while not (alone or drains) and station.load < station.most:
            slot = min(slots, key=lambda slot: len(slot.tasks), default=None)
            if slot is None or len(slot.tasks) >= QUEUE or (task := self._next()) is None:
                break
            self._expect(station.read(slot, task), Step.READ, station, slot, task)
        self._feed_predictor(station)

    def _feed_predictor(self, station: Station) -> None:
        while station.facts and station.waiting and len(station.predicting) <= station.facts.in_flight:
            task = station.waiting.popleft()
            objects = self._recorder.objects_of(task, self._objects)
            self._expect(station.predict(task, objects), Step.PREDICTED, station, None, task)

    def _next(self) -> Task | None:
        """The next entry that has no row; None if there is none at the moment."""
        if self._again:
            return self._again.popleft()
        for _ in range(1000):  # of a long list of known ones, results come between
            if self._ending is not None or self._taken == self._plan.limit or (entry := self._take()) is None:
                return None
            key = entry_id(entry, self._plan.identifiers)
            if not (entry.version and self.dataset.is_known(key)):
                self._taken += 1
                return Task(entry=entry, id=key)
            self._count(KEPT)
        return None

    def _take(self) -> Entry | None:
        assert self._feed is not None
        try:
            return self._feed.take()
        except SourceUnavailable as error:
            self._ending = error
            return None

    def _count(self, outcome: str) -> None:
        self.counts[outcome] += 1
        self._progress(self)

    def _expect(
        self, reference: Any, step: Step, station: Station, slot: ReaderSlot | None = None, task: Task | None = None
    ) -> None:
        self._pending[reference] = Pending(step=step, station=station, slot=slot, task=task)

    def _wait(self) -> None:
        """Handle what is ready, after at most a quarter of a second."""
        references = list(self._pending)
        if not references:
            time.sleep(0.02)
        ready = self._ray.wait(references, num_returns=1, timeout=0.25)[0] if references else []
        if ready:
            ready = self._ray.wait(references, num_returns=len(references), timeout=0)[0]
        for reference in ready:
            # a process that has ended takes all its references with it
            if (pending := self._pending.pop(reference, None)) is not None:
                self._handle(reference, pending)
        if time.monotonic() - self._refreshed > 1:
            self._refreshed = time.monotonic()
            self._refresh()
            self._kill_hung()
            self._progress(self)

    def _handle(self, reference: Any, pending: Pending) -> None:
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.ActorUnschedulableError:  # the node is gone
            self._leave(pending.station)
        except (errors.RayActorError, errors.OutOfMemoryError):  # the second if Ray ended it, to free memory
            self._on_death(pending)
        except errors.RayTaskError as error:
            if isinstance(error.cause, OSError):
                with writing(self._plan.dest):
                    raise error.cause from error
            raise BackendRunError(
                f"a process of the run failed ({type(error.cause).__name__}). This is a fault of glam-deploy, or it is "
                "not installed in the same release on all nodes"
            ) from error
        except errors.RayError:  # an object was lost with its node
            self._release(pending)
        else:
            self._on_value(pending, value)

    def _on_value(self, pending: Pending, value: Any) -> None:
        station, slot, task = pending.station, pending.slot, pending.task
        if pending.step is Step.OPENED:
            self._on_opened(station, value)
        elif pending.step is Step.STARTED:
            assert slot is not None
            slot.is_ready = True
            self.unlimited = self.unlimited or value
        elif pending.step is Step.PREDICTED:
            assert task is not None
            station.remove(task)
            station.predicting_since, station.failures, self._causes = time.monotonic(), 0, 0
            self.without_objects += NO_DICOM in value.notices
            self._recorder.finish(task, value)
        else:
            assert slot is not None and task is not None
            slot.tasks.remove(task)
            slot.since = time.monotonic()
            self._on_fingerprint(pending.step, station, slot, task, value)

    def _on_fingerprint(self, step: Step, station: Station, slot: ReaderSlot, task: Task, found: Fingerprint) -> None:
        if found.unavailable:
            self._ending = self._ending or SourceUnavailable(found.unavailable)
            self._recorder.drop(task)
            return
        task.fingerprint = found
        if self._recorder.is_settled(task):
            task.view = None
        elif step is Step.IDENTIFIED:
            self._expect(station.read(slot, task), Step.READ, station, slot, task)
        elif found.finding is not None:
            self._recorder.finish(task, found.finding)
        else:
            station.waiting.append(task)
            self._feed_predictor(station)

    def _on_opened(self, station: Station, answer: PredictorFacts | Refusal) -> None:
        """Take a pipeline that gives the results of the run. Raises the error of one that cannot be opened."""
        if isinstance(answer, Refusal):
            error = _RefusedByNode(answer.message)
            error.exit_code = answer.exit_code
            raise error
        if answer.version != __version__:
            raise BackendUnavailable(
                f"a node has glam-deploy {answer.version}, this machine {__version__}: install the same release there"
            )
        maker = Maker.of(answer.provenance)
        if self.maker is None:
            self.maker = maker
            self.partition = partition(maker, for_processing=self._plan.reader.for_processing)
        elif maker.made_by != self.maker.made_by:
            raise UsageError(
                f"the nodes open different engines ({self.maker.engine} and {maker.engine}, or other versions of their "
                "library): name one with --engine, and install the same versions on all nodes"
            )
        station.facts = answer
        for _ in range(station.readers - len(station.slots)):
            self._start_reader(station)

    def _start_reader(self, station: Station) -> None:
        slot, reference = station.start_reader()
        self._expect(reference, Step.STARTED, station, slot)

    # processes and nodes that end

    def _on_death(self, pending: Pending) -> None:
        """A process has ended: its entries are tried again, alone if one of them may be the cause."""
        station, slot = pending.station, pending.slot
        lost = [pending.task] if pending.task else []
        for reference, other in list(self._pending.items()):
            if other.station is station and other.slot is slot:
                del self._pending[reference]
                lost += [other.task] if other.task else []
        for lost_task in lost:
            self._blame(lost_task)
        station.failures += not lost
        if slot is None:
            station.predicting.clear()
            self._require_alive(station)
            self._expect(station.start_predictor(), Step.OPENED, station)
        else:
            station.slots.remove(slot)
            self._require_alive(station)
            self._start_reader(station)

    def _blame(self, task: Task) -> None:
        task.view = None
        task.deaths += task.suspect
        if task.deaths < MOST_DEATHS:
            task.suspect = True
            self._suspects.append(task)
            return
        reason = f"the process that read or computed it ended {MOST_DEATHS} times, each time with this input alone"
        self._recorder.finish(task, Finding(status=FAILED, error="ProcessDied", reason=reason))
        self._causes += 1
        if self._causes > MOST_CAUSES:
            raise BackendRunError(
                f"{self._causes} inputs one after another ended their process. Perhaps a node lacks memory: use fewer "
                "--readers, or an engine that needs less. They are recorded as failed, for --retry-failed; the same "
                "command goes on with the others"
            )

    def _require_alive(self, station: Station) -> None:
        """Raises BackendRunError if the processes of a node end again and again; not if the node is gone."""
        if station.failures > MOST_FAILURES and station.node.id in {node.id for node in nodes(self._ray)}:
            raise BackendRunError(
                f"processes of one node ended {station.failures} times, one after another, without a result. Perhaps "
                "it lacks memory or this release of glam-deploy: use fewer --readers, or install it there"
            )

    def _release(self, pending: Pending) -> None:
        """Try an entry again whose content was lost with a node."""
        station, task = pending.station, pending.task
        assert task is not None
        if pending.slot is None:
            station.remove(task)
        else:
            pending.slot.tasks.remove(task)
        self._again.append(task)

    def _refresh(self) -> None:
        """Leave nodes that are gone, and use new ones."""
        alive = nodes(self._ray)
        ids = {node.id for node in alive}
        for station in [station for station in self._stations if station.node.id not in ids]:
            self._leave(station)
        known = {station.node.id for station in self._stations}
        for node in (node for node in alive if node.id not in known):
            self._stations += self._new_stations(node)
        if not self._stations:
            raise BackendUnavailable("the Ray cluster has no node with a CPU left: start one, and run this again")

    def _require_cores(self) -> None:
        """Raises UsageError for more threads than any node has cores."""
        threads, most = self._plan.engine.threads or 1, max(station.node.cpus for station in self._stations)
        if threads > max(most, 1):
            raise UsageError(f"--threads {threads} is more than a node has cores: give at most {most}, or leave it out")

    def _leave(self, station: Station) -> None:
        """Give up a station; its entries are tried again on others."""
        self._stations.remove(station)
        for task in station.tasks:
            (self._suspects if task.suspect else self._again).append(task)
        self._pending = {ref: one for ref, one in self._pending.items() if one.station is not station}

    def _new_stations(self, node: Node) -> Sequence[Station]:
        gpu = self._plan.use_gpus and node.gpus > 0
        threads = self._plan.engine.threads or node.cpus
        count = node.gpus if gpu else max(1, node.cpus // threads)
        cpus = 0 if gpu else min(threads, node.cpus)
        found = [Station(self._ray, node, self._station_plan, cpus=cpus, gpu=gpu) for _ in range(count)]
        for station in found:
            self._expect(station.start_predictor(), Step.OPENED, station)
        return found

    def _kill_hung(self) -> None:
        """Kill processes that have exceeded their time; then they are handled as others that have ended."""
        now, plan = time.monotonic(), self._plan
        for station in self._stations:
            if station.predicting and now - station.predicting_since > plan.computing_limit_s:
                station.kill()
            for slot in station.slots:
                if slot.tasks and now - slot.since > plan.reading_limit_s:
                    station.kill(slot)


class _RefusedByNode(GlamError):
    """The error of a node, with its exit code."""

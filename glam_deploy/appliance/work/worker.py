"""The worker: takes one job after another, runs the network on its views, leaves results and parcels."""

import logging
import sqlite3
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, takewhile

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.state import jobs
from glam_deploy.appliance.state.database import open_database
from glam_deploy.appliance.state.events import last_state
from glam_deploy.appliance.state.jobs import Job, JobView, Settled
from glam_deploy.appliance.state.steady import steady_clock
from glam_deploy.appliance.work.heartbeat import Heartbeat, is_dead, worker_name
from glam_deploy.appliance.work.making import making_of
from glam_deploy.appliance.work.network import Network, words
from glam_deploy.appliance.work.predictor import Predictor, PredictorOf, load_predictor
from glam_deploy.appliance.work.publish import Publisher
from glam_deploy.appliance.work.reading import Stopped, ViewReader
from glam_deploy.appliance.work.steps import Read, Steps, is_settled, known_outcome
from glam_deploy.errors import BackendRunError
from glam_deploy.runtime.overlap import ahead, behind

log = logging.getLogger(__name__)

LOOK_S = 0.05
"""Between two looks for a job: a part of the time from the last view to the results."""
STORAGE_RETRY_S = 5.0
"""Between two attempts to write to a disk that is full."""


class NotOurs(Exception):
    """The lease on the job ran out: whoever has it now goes on from what lies on the disk."""


def run(config: Config, stop: threading.Event, *, predictor_of: PredictorOf = load_predictor) -> None:
    """Work until `stop` is set; the job under way is then given back, and its finished views stay.

    Raises UsageError where the data folder cannot be used. An engine that cannot be opened, or has no gate, does not
    end it: the worker says so, and tries again. One that fails while it runs and cannot be opened anew does (SystemExit
    1): it needs another process.
    """
    data = DataFolder(root=config.data)
    data.make()
    limits = config.worker
    with closing(open_database(data.database)) as connection:
        suspect = last_state(connection, "worker") == "failing"
        said = ("failing", {"reason": "its engine failed, and is tried again"}) if suspect else ("starting", {})
        with closing(
            Heartbeat(data.database, lease_s=limits.lease_s, longest_view_s=limits.longest_view_s, said=said)
        ) as heartbeat:
            network = Network(config, predictor_of, heartbeat, suspect=suspect)
            with closing(ViewReader(longest_s=limits.longest_read_s, stop=stop)) as reader:
                worker = Worker(config, data, connection, heartbeat=heartbeat, network=network, reader=reader)
                worker.work_until(stop)


class Worker:
    """One process's work, one job at a time."""

    def __init__(
        self,
        config: Config,
        data: DataFolder,
        connection: sqlite3.Connection,
        *,
        heartbeat: Heartbeat,
        network: Network,
        reader: ViewReader,
    ) -> None:
        self._reader = reader
        self._config, self._data, self._connection = config, data, connection
        self._heartbeat, self._network, self._stop = heartbeat, network, threading.Event()
        self._limits = config.worker
        self._steady = steady_clock(connection)
        self._name = worker_name()
        self._audit = open_audit(data)
        self._at_hand: Job | None = None
        self._under_way: set[str] = set()

    def work_until(self, stop: threading.Event) -> None:
        """One job after another."""
        self._stop = stop
        self._reader.start()
        jobs.take_back(self._connection, now=self._steady(), attempts=self._limits.attempts, is_dead=is_dead)
        while not self._stop.is_set():
            try:
                if not self._one_job():
                    self._stop.wait(LOOK_S)
            except sqlite3.OperationalError as error:  # a full disk; it goes on when there is space
                log.error("state.db takes nothing (%s)", error)
                self._stop.wait(STORAGE_RETRY_S)

    def _one_job(self) -> bool:
        """Whether there was one."""
        if self._at_hand:  # a full disk took the last word on it
            jobs.give_back(self._connection, self._at_hand)
            self._hold(None)
        predictor = self._network.open(self._stop)
        job = predictor and self._claim()
        if not predictor or not job:
            return False
        self._hold(job)
        self._attempt(predictor)
        self._hold(None)
        return True

    def _claim(self, study_uid: str | None = None) -> Job | None:
        limits = self._limits
        return jobs.claim(
            self._connection,
            worker=self._name,
            now=self._steady(),
            lease_s=limits.lease_s,
            attempts=limits.attempts,
            study_uid=study_uid,
        )

    def _hold(self, job: Job | None) -> None:
        self._at_hand = job
        self._heartbeat.hold(job)

    @property
    def _job(self) -> Job:
        """The one at hand, which changes when another view of its study comes."""
        assert self._at_hand
        return self._at_hand

    def _attempt(self, predictor: Predictor) -> None:
        """Bring the job at hand to its end, or hand it on with what went wrong."""
        self._under_way.clear()
        try:
            self._do(predictor)
        except NotOurs:
            log.info("study %s: another worker has it now", self._job.pseudonym)
        except Stopped:
            jobs.give_back(self._connection, self._job)
        except BackendRunError as error:
            self._engine_failed(error)
        except OSError as error:
            self._no_storage(error)
        except sqlite3.OperationalError:
            raise
        except Exception as error:
            self._fail(words(error))

    def _engine_failed(self, error: BackendRunError) -> None:
        """Go on where the engine, opened anew, works on another image; else end this process: a GPU's context is lost
        for good. The next process tries the engine before it takes a job, so that no other job is lost to it.
        """
        works = self._network.reload()
        self._fail(f"the engine failed on it: {error}")
        if not works:
            raise SystemExit(1)

    def _no_storage(self, error: OSError) -> None:
        log.error("study %s: the machine does not let it go on (%s)", self._job.pseudonym, error.strerror)
        next_try, reason = self._steady() + STORAGE_RETRY_S, f"cannot write results, or read views ({error.strerror})"
        jobs.give_back(self._connection, self._job, next_try=next_try, reason=reason)

    def _fail(self, reason: str) -> None:
        self._audit.write("work_failed", study=self._job.study_uid, job=self._job.id, reason=reason)
        jobs.fail(self._connection, self._job, now=self._steady(), attempts=self._limits.attempts, reason=reason)

    def _do(self, predictor: Predictor) -> None:
        started = time.monotonic()
        making = making_of(predictor, self._config, self._data)
        publisher = Publisher(data=self._data, config=self._config, making=making)
        self._do_views(predictor, publisher)
        job = self._job
        views = jobs.views(self._connection, job)
        # the reports on the whole study would be replaced at once
        self._require_ours(jobs.renew(self._connection, job, self._steady() + self._limits.lease_s))
        objects = publisher.reports.publish(job, views)
        targets = [target.name for target in self._config.targets]
        self._require_ours(jobs.finish(self._connection, job, objects=objects, targets=targets))
        done, skipped, failed = (sum(view.outcome == name for view in views) for name in ("done", "skipped", "failed"))
        seconds = round(time.monotonic() - started, 3)
        self._audit.write(
            "worked", study=job.study_uid, job=job.id, done=done, skipped=skipped, failed=failed, seconds=seconds
        )

    def _do_views(self, predictor: Predictor, publisher: Publisher) -> None:
        """One view is read, and one is written, while the network has another: no more than three in memory."""
        study_uid = self._job.study_uid
        steps = Steps(
            study_uid=study_uid,
            predictor=predictor,
            publisher=publisher,
            heartbeat=self._heartbeat,
            reader=self._reader,
        )
        while not all(is_settled(view, publisher) for view in jobs.views(self._connection, self._job)):
            if self._stop.is_set():
                raise Stopped
            with closing(behind(steps.write, steps.computed(self._read(steps)))) as finished:
                for settled in finished:
                    self._settle(publisher, [settled])
                    self._under_way.discard(settled.sop_uid)

    def _read(self, steps: Steps) -> Iterator[Read | Settled]:
        """Views as they are read, as long as any of the job at hand is left; a new one of the study comes last."""
        while views := self._todo(steps.publisher):
            steps.idle.clear()
            with (
                closing(self._late_views(steps)) as late,
                closing(ahead(steps.read, chain(self._while_wanted(views), late))) as seen,
            ):
                try:
                    yield from takewhile(lambda _: not self._stop.is_set(), seen)
                finally:
                    steps.idle.set()  # the other thread looks for late views until then

    def _late_views(self, steps: Steps) -> Generator[JobView, None, None]:
        """Views that come while the network has the last that we knew of: they are read before it has to wait for them.

        Their job is the successor of the one at hand, which it replaces before they are settled. For another thread.
        """
        # this thread closes it where the other has not come to the end
        with closing(open_database(self._data.database, one_thread=False)) as connection:
            while True:
                if late := self._late_view(connection, steps):
                    self._under_way.add(late.sop_uid)
                    yield late
                elif steps.idle.wait(LOOK_S):
                    return

    def _late_view(self, connection: sqlite3.Connection, steps: Steps) -> JobView | None:
        """One that nobody has begun. (Views are under way until their outcome is there: hence this order.)"""
        begun = set(self._under_way)
        for view in jobs.open_views(connection, steps.study_uid, self._name):
            if view.sop_uid not in begun and known_outcome(view, steps.publisher) is None:
                return view
        return None

    def _todo(self, publisher: Publisher) -> list[JobView]:
        """Views that wait for the network. What is known of others is written down."""
        self._keep()
        views = jobs.views(self._connection, self._job)
        open_ = [view for view in views if view.sop_uid not in self._under_way and not is_settled(view, publisher)]
        known = [settled for view in open_ if (settled := known_outcome(view, publisher))]
        self._settle(publisher, known)
        names = {each.sop_uid for each in known}
        return [] if self._stop.is_set() else [view for view in open_ if view.sop_uid not in names]

    def _while_wanted(self, views: Iterable[JobView]) -> Iterator[JobView]:
        """Until the worker is told to stop, or the job is somebody else's."""
        for view in views:
            if self._stop.is_set() or self._heartbeat.has_lost(self._job):
                return
            self._under_way.add(view.sop_uid)
            yield view

    def _keep(self) -> None:
        """The lease on the job at hand, or on its successor: all views of the one are views of the other."""
        while not jobs.renew(self._connection, self._job, self._steady() + self._limits.lease_s):
            self._succeed()

    def _settle(self, publisher: Publisher, settled: Sequence[Settled]) -> None:
        while settled and not jobs.settle_views(self._connection, self._job, settled):
            self._succeed()
        publisher.reports.expect(self._job, jobs.views(self._connection, self._job))

    def _succeed(self) -> None:
        """Another view of the study has come: the job that is on that one too takes the place of the one at hand."""
        job = self._claim(self._job.study_uid)
        self._require_ours(job is not None)
        self._hold(job)

    def _require_ours(self, ours: bool) -> None:
        if not ours:
            raise NotOurs

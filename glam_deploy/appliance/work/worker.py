"""The role `worker`: claims one job after another, runs the network on its views, and writes results and deliveries."""

import logging
import sqlite3
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, takewhile

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.config.routes import Route, first_match
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.device import device_uid
from glam_deploy.appliance.process import RECURRING
from glam_deploy.appliance.state import jobs
from glam_deploy.appliance.state.database import last_state, monotonic_clock, open_database
from glam_deploy.appliance.state.deliveries import ResultObject
from glam_deploy.appliance.state.jobs import Job, JobView, JobViewOutcome
from glam_deploy.appliance.state.priority import Priority, is_outranked, priority_of
from glam_deploy.appliance.work.heartbeat import Heartbeat, WorkerStatus, is_dead, worker_name
from glam_deploy.appliance.work.predictor import (
    Predictor,
    PredictorLoader,
    PredictorProvider,
    error_text,
    load_predictor,
)
from glam_deploy.appliance.work.provenance import result_provenance
from glam_deploy.appliance.work.result_objects import Publisher
from glam_deploy.appliance.work.routing import origins_of
from glam_deploy.appliance.work.steps import PreparedView, ViewSteps, is_finished, outcome_without_network
from glam_deploy.decoding.view_reader import Stopped, ViewReaders
from glam_deploy.errors import BackendRunError, disk_reason
from glam_deploy.runtime.overlap import ahead, behind

log = logging.getLogger(__name__)

POLL_S = 0.05
"""Between two checks for a job; part of the time from the last view to the results."""
STORAGE_RETRY_S = 5.0
"""Between two attempts to write to a full disk."""


class LeaseLost(Exception):
    """The lease on the job ran out; the worker that has it now continues from the results on the disk."""


def run(config: Config, stop: threading.Event, *, loader: PredictorLoader = load_predictor) -> None:
    """Process jobs until `stop` is set; the current job is then released, and its finished views are kept.

    Raises UsageError if the data folder or its device UID cannot be used. If the engine cannot be loaded, or has not
    passed a gate, the worker reports it and retries. If the engine fails while running and cannot be loaded again, the
    process ends with SystemExit(1), because it needs a new process.
    """
    data = DataFolder(root=config.data)
    data.make()
    device_uid(data)  # it is in every result: a damaged one is found before the first
    limits = config.worker
    with closing(open_database(data.database)) as connection:
        must_probe = last_state(connection, "worker") == "failing"
        failing = WorkerStatus(state="failing", reason="the engine failed and is loaded again")
        status = failing if must_probe else WorkerStatus(state="starting")
        with closing(
            Heartbeat(data.database, lease_s=limits.lease_s, longest_view_s=limits.longest_view_s, status=status)
        ) as heartbeat:
            predictors = PredictorProvider(config, loader, heartbeat, must_probe=must_probe)
            with closing(ViewReaders(longest_s=limits.longest_read_s, stop=stop)) as readers:
                worker = Worker(config, data, connection, heartbeat=heartbeat, predictors=predictors, readers=readers)
                worker.work_until(stop)


class Worker:
    """Processes one job at a time."""

    def __init__(
        self,
        config: Config,
        data: DataFolder,
        connection: sqlite3.Connection,
        *,
        heartbeat: Heartbeat,
        predictors: PredictorProvider,
        readers: ViewReaders,
    ) -> None:
        self._readers = readers
        self._config, self._data, self._connection = config, data, connection
        self._heartbeat, self._predictors, self._stop = heartbeat, predictors, threading.Event()
        self._limits = config.worker
        self._monotonic = monotonic_clock(connection)
        self._name = worker_name()
        self._audit = open_audit(data)
        self._current: Job | None = None
        self._in_progress: set[str] = set()
        self._outranked = False
        """Whether a job of a higher priority waits; as of the last view that was finished."""

    def work_until(self, stop: threading.Event) -> None:
        """Process jobs until `stop` is set."""
        self._stop = stop
        self._readers.start()
        jobs.reclaim(self._connection, now=self._monotonic(), attempts=self._limits.attempts, is_dead=is_dead)
        while not self._stop.is_set():
            try:
                if not self._one_job():
                    self._stop.wait(POLL_S)
            except sqlite3.OperationalError as error:  # a full disk: retry until there is space
                log.error("state.db cannot be written (%s)", error, extra=RECURRING)
                self._stop.wait(STORAGE_RETRY_S)

    def _one_job(self) -> bool:
        """Process a job; False if there was none."""
        if self._current:  # its end could not be recorded because of a full disk
            jobs.release(self._connection, self._current)
            self._set_job(None)
        predictor = self._predictors.open(self._stop)
        job = predictor and self._claim()
        if not predictor or not job:
            return False
        self._set_job(job)
        self._attempt(predictor)
        self._set_job(None)
        return True

    def _claim(self, study_uid: str | None = None) -> Job | None:
        limits = self._limits
        return jobs.claim(
            self._connection,
            worker=self._name,
            now=self._monotonic(),
            lease_s=limits.lease_s,
            attempts=limits.attempts,
            study_uid=study_uid,
        )

    def _set_job(self, job: Job | None) -> None:
        self._current, self._outranked = job, False
        self._heartbeat.set_job(job)

    @property
    def _job(self) -> Job:
        """The current job, which changes when another view of its study arrives."""
        assert self._current
        return self._current

    def _attempt(self, predictor: Predictor) -> None:
        """Process the current job to its end, or record why it failed."""
        self._in_progress.clear()
        try:
            self._process(predictor)
        except LeaseLost:
            log.info("study %s: another worker has leased it", self._job.pseudonym)
        except Stopped:
            jobs.release(self._connection, self._job)
        except BackendRunError as error:
            self._engine_failed(error)
        except OSError as error:
            self._storage_failed(error)
        except sqlite3.OperationalError:
            raise
        except Exception as error:
            self._fail(error_text(error))

    def _engine_failed(self, error: BackendRunError) -> None:
        """Reload the engine and go on if it works on another image, else end this process, since a GPU's context cannot
        recover.

        The next process probes the engine before it claims a job, so that no other job is affected.
        """
        works = self._predictors.reload()
        self._fail(f"the engine failed: {error}")
        if not works:
            raise SystemExit(1)

    def _storage_failed(self, error: OSError) -> None:
        cause = disk_reason(error)
        text = "study %s: interrupted by an error of the machine (%s)"
        log.error(text, self._job.pseudonym, cause, extra=RECURRING)
        reason = f"cannot write results or read views ({cause})"
        jobs.release(self._connection, self._job, next_try=self._monotonic() + STORAGE_RETRY_S, reason=reason)

    def _fail(self, reason: str) -> None:
        self._audit.write("work_failed", study=self._job.study_uid, job=self._job.id, reason=reason)
        jobs.fail(self._connection, self._job, now=self._monotonic(), attempts=self._limits.attempts, reason=reason)

    def _process(self, predictor: Predictor) -> None:
        started = time.monotonic()
        if self._target_names() is None:
            self._discard()
            return
        provenance = result_provenance(predictor, self._config, self._data)
        publisher = Publisher(data=self._data, config=self._config, provenance=provenance)
        self._process_views(predictor, publisher)
        job = self._job
        views = jobs.job_views(self._connection, job)
        # without the lease the reports would be made in vain
        self._require_lease(jobs.renew(self._connection, job, self._monotonic() + self._limits.lease_s))
        with publisher.reports.prepared(job, views) as reports:
            results = self._by_target(reports.objects)
            finished = jobs.finish(self._connection, job, results, place=reports.place)
        self._require_lease(finished)
        done, skipped, failed = (sum(view.outcome == name for view in views) for name in ("done", "skipped", "failed"))
        seconds = round(time.monotonic() - started, 3)
        self._audit.write(
            "worked", study=job.study_uid, job=job.id, done=done, skipped=skipped, failed=failed, seconds=seconds
        )

    @property
    def _must_end(self) -> bool:
        """Whether the current job is to be given back, with its finished views."""
        return self._stop.is_set() or self._outranked

    def _route(self) -> Route | None:
        """The routing rule that applies to the current job's study."""
        if not self._config.routes:
            return None
        origins = origins_of(jobs.job_views(self._connection, self._job), self._data.root)
        found = first_match(self._config.routes, origins)
        return found[1] if found else None

    def _target_names(self) -> tuple[str, ...] | None:
        """Names of the targets of the current job's study; None if a rule discards it."""
        names, fetch = self._config.targets_of(self._route()), self._config.fetch
        if names is None or fetch is None or fetch.targets is None:
            return names
        is_fetched = priority_of(self._connection, self._job.study_uid) is Priority.FETCHED
        return fetch.targets if is_fetched else names

    def _discard(self) -> None:
        """End the current job without results, by a routing rule."""
        job, reason = self._job, "not processed, by a rule of [[routes]] in the configuration"
        views = [view for view in jobs.job_views(self._connection, job) if view.outcome is None]
        skipped = [JobViewOutcome(sop_uid=view.sop_uid, outcome="skipped", reason=reason) for view in views]
        self._require_lease(jobs.record_outcomes(self._connection, job, skipped))
        self._require_lease(jobs.finish(self._connection, job, {}))
        self._audit.write("worked", study=job.study_uid, job=job.id, done=0, skipped=len(skipped), failed=0)

    def _by_target(self, objects: Sequence[ResultObject]) -> dict[str, list[ResultObject]]:
        """Name of each target that gets any of the objects -> those that it gets.

        A rule that discards the study, because of a view that arrived meanwhile, means no target.
        """
        config, names = self._config, self._target_names() or ()
        targets = [target for target in config.targets if target.name in names]
        found = {each.name: [one for one in objects if one.kind in config.kinds_for(each)] for each in targets}
        return {name: given for name, given in found.items() if given}

    def _process_views(self, predictor: Predictor, publisher: Publisher) -> None:
        """Reads a view (or `Predictor.ahead` views) and writes another while the network computes a third.

        With a CPU engine, at most three views are in memory.
        """
        study_uid = self._job.study_uid
        steps = ViewSteps(
            study_uid=study_uid,
            predictor=predictor,
            publisher=publisher,
            heartbeat=self._heartbeat,
            readers=self._readers,
        )
        while not all(is_finished(view, publisher) for view in jobs.job_views(self._connection, self._job)):
            if self._must_end:
                raise Stopped
            with closing(behind(steps.write, steps.computed(self._prepared(steps)))) as finished:
                for outcome in finished:
                    self._record(publisher, [outcome])
                    self._in_progress.discard(outcome.sop_uid)
                    self._outranked = is_outranked(self._connection, study_uid, self._monotonic())

    def _prepared(self, steps: ViewSteps) -> Iterator[PreparedView | JobViewOutcome]:
        """Prepared views, as long as any of the current job is left; views that arrive late come last."""
        while views := self._unprocessed(steps.publisher):
            steps.idle.clear()
            with (
                closing(self._late_views(steps)) as late,
                closing(
                    ahead(steps.read, chain(self._until_stopped(views), late), threads=steps.predictor.ahead)
                ) as seen,
            ):
                try:
                    yield from takewhile(lambda _: not self._must_end, seen)
                except Stopped:
                    # the reading of a further view was cut off; those under way are finished and recorded
                    if not self._stop.is_set():
                        raise
                    return
                finally:
                    steps.idle.set()  # ends the other thread's search for late views

    def _late_views(self, steps: ViewSteps) -> Generator[JobView, None, None]:
        """Views that arrive while the network computes the last known one; read ahead so that the network need not
        wait.

        Their job is the successor of the current one, which it replaces before their outcomes are recorded. Runs in
        another thread.
        """
        # closed by this thread if the other one has not reached the end
        with closing(open_database(self._data.database, one_thread=False)) as connection:
            while True:
                if late := self._late_view(connection, steps):
                    self._in_progress.add(late.sop_uid)
                    yield late
                elif steps.idle.wait(POLL_S):
                    return

    def _late_view(self, connection: sqlite3.Connection, steps: ViewSteps) -> JobView | None:
        """A view that has not been begun. (A view stays in `_in_progress` until its outcome is recorded: hence this
        order.)
        """
        begun = set(self._in_progress)
        for view in jobs.unfinished_views(connection, steps.study_uid, self._name):
            if view.sop_uid not in begun and outcome_without_network(view, steps.publisher) is None:
                return view
        return None

    def _unprocessed(self, publisher: Publisher) -> list[JobView]:
        """Views that wait for the network; outcomes of views that need no network are recorded here."""
        self._renew_lease()
        views = jobs.job_views(self._connection, self._job)
        open_ = [view for view in views if view.sop_uid not in self._in_progress and not is_finished(view, publisher)]
        known = [outcome for view in open_ if (outcome := outcome_without_network(view, publisher))]
        self._record(publisher, known)
        names = {each.sop_uid for each in known}
        return [] if self._must_end else [view for view in open_ if view.sop_uid not in names]

    def _until_stopped(self, views: Iterable[JobView]) -> Iterator[JobView]:
        """The views, until the worker is asked to stop or loses the lease."""
        for view in views:
            if self._must_end or self._heartbeat.has_lost(self._job):
                return
            self._in_progress.add(view.sop_uid)
            yield view

    def _renew_lease(self) -> None:
        """Renew the lease on the current job, or switch to its successor, which has all views of the current one."""
        while not jobs.renew(self._connection, self._job, self._monotonic() + self._limits.lease_s):
            self._switch_to_successor()

    def _record(self, publisher: Publisher, outcome: Sequence[JobViewOutcome]) -> None:
        while outcome and not jobs.record_outcomes(self._connection, self._job, outcome):
            self._switch_to_successor()
        publisher.reports.set_next_job(self._job, jobs.job_views(self._connection, self._job))

    def _switch_to_successor(self) -> None:
        """Claim the study's new job, created because another view arrived, in place of the current one."""
        job = self._claim(self._job.study_uid)
        self._require_lease(job is not None)
        self._set_job(job)

    def _require_lease(self, holds_lease: bool) -> None:
        if not holds_lease:
            raise LeaseLost

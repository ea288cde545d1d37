"""The steps of one view: read, compute, write."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from glam_deploy.appliance.state.jobs import JobView, JobViewOutcome
from glam_deploy.appliance.work.heartbeat import Heartbeat
from glam_deploy.appliance.work.predictor import Predictor, error_text
from glam_deploy.appliance.work.result_objects import Publisher
from glam_deploy.decoding.view_reader import Stopped, ViewReaders
from glam_deploy.errors import BackendRunError, NotForThisNetwork, without_frames
from glam_deploy.records import Mammogram
from glam_deploy.runtime.overlap import in_batches
from glam_deploy.runtime.result import Pending, Result


@dataclass(frozen=True, kw_only=True)
class PreparedView:
    """A view after reading and preprocessing."""

    view: JobView
    mammogram: Mammogram
    prepared: Any


@dataclass(frozen=True, kw_only=True)
class StartedView:
    """A view that the network has begun."""

    prepared_view: PreparedView
    pending: Pending
    started: float
    """Time of `time.monotonic`."""


@dataclass(frozen=True, kw_only=True)
class ComputedView:
    """A view with the network's result."""

    view: JobView
    mammogram: Mammogram
    result: Result
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ViewSteps:
    """Reading, computing and writing of views. A failed step gives an outcome instead of an exception."""

    study_uid: str
    predictor: Predictor
    publisher: Publisher
    heartbeat: Heartbeat
    readers: ViewReaders
    idle: threading.Event = field(default_factory=threading.Event)
    """Set while the network has no view."""

    def read(self, view: JobView) -> PreparedView | JobViewOutcome:
        try:
            rules = self.publisher.config.accept
            path = self.publisher.data.root / view.path
            mammogram = self.readers.read(path, for_processing=rules.for_processing)
            return PreparedView(view=view, mammogram=mammogram, prepared=self.predictor.prepare(mammogram))
        except (Stopped, OSError):  # not a fault of the view
            raise
        except Exception as error:
            return _failure(view, error)

    def computed(self, views: Iterator[PreparedView | JobViewOutcome]) -> Iterator[ComputedView | JobViewOutcome]:
        """The computed views, in their order. The next view is read before the last one is yielded for writing, so that
        writing delays neither reading nor the network.

        Up to `Predictor.in_flight` runs are under way, each of one view or of `worker.batch` of them.
        """
        size = self.publisher.config.worker.batch
        under_way: deque[StartedView | JobViewOutcome] = deque()
        for batch in in_batches(self._awaited(views), size, kind=_kind):
            while len(under_way) + len(batch) > size * self.predictor.in_flight:
                yield self.finish(under_way.popleft())
            under_way.extend(self.start(batch))
        while under_way:
            yield self.finish(under_way.popleft())

    def start(self, batch: Sequence[PreparedView | JobViewOutcome]) -> Sequence[StartedView | JobViewOutcome]:
        """Start views as one run; an outcome is alone in its batch."""
        views = [view for view in batch if isinstance(view, PreparedView)]
        if not views:
            return [view for view in batch if isinstance(view, JobViewOutcome)]
        started = time.monotonic()
        try:
            with self._computing():
                runs = self.predictor.submit_batch([view.prepared for view in views])
        except BackendRunError:
            raise
        except Exception as error:
            return _failures([view.view for view in views], error)
        return [
            StartedView(prepared_view=view, pending=run, started=started) for view, run in zip(views, runs, strict=True)
        ]

    def finish(self, started: StartedView | JobViewOutcome) -> ComputedView | JobViewOutcome:
        """Wait for the result of a view."""
        if isinstance(started, JobViewOutcome):
            return started
        view = started.prepared_view
        try:
            with self._computing():
                result = started.pending.result()
        except BackendRunError:
            raise
        except Exception as error:
            return _failure(view.view, error)
        seconds = time.monotonic() - started.started
        return ComputedView(view=view.view, mammogram=view.mammogram, result=result, seconds=seconds)

    def _awaited(self, views: Iterator[PreparedView | JobViewOutcome]) -> Iterator[PreparedView | JobViewOutcome]:
        """The views. The network is idle while it waits for the next one, also for the next of a batch."""
        for view in views:
            yield view
            self.idle.set()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Marks the time during which this thread waits for the network."""
        self.idle.clear()
        try:
            with self.heartbeat.computing():
                yield
        finally:
            self.idle.set()

    def write(self, computed: ComputedView | JobViewOutcome) -> JobViewOutcome:
        if isinstance(computed, JobViewOutcome):
            return computed
        view = computed.view
        try:
            folder = self.publisher.publish_view(self.study_uid, view, computed.mammogram, computed.result)
        except OSError:  # not a fault of the view
            raise
        except Exception as error:
            return _failure(view, error)
        relative = self.publisher.data.relative(folder)
        return JobViewOutcome(sop_uid=view.sop_uid, outcome="done", folder=relative, seconds=computed.seconds)


def _kind(view: PreparedView | JobViewOutcome) -> bool | None:
    """The kind of views that may be in one batch, which are all raw; None for an outcome."""
    return True if isinstance(view, PreparedView) else None


def _failure(view: JobView, error: Exception) -> JobViewOutcome:
    (outcome,) = _failures([view], error)
    return outcome


def _failures(views: Sequence[JobView], error: Exception) -> list[JobViewOutcome]:
    """The outcomes of views with one error, whose traceback is removed, so that it holds no image."""
    outcome = "skipped" if isinstance(error, NotForThisNetwork) else "failed"
    reason = error_text(error)
    without_frames(error)
    return [JobViewOutcome(sop_uid=view.sop_uid, outcome=outcome, reason=reason) for view in views]


def is_finished(view: JobView, publisher: Publisher) -> bool:
    """Whether a view needs no more work; one processed by another network, or whose results were removed, does."""
    if view.outcome == "done":
        folder = publisher.view_folder(view)
        return folder.is_dir() and view.folder == publisher.data.relative(folder)
    return view.outcome is not None


def outcome_without_network(view: JobView, publisher: Publisher) -> JobViewOutcome | None:
    """The outcome of a view that needs no network: not a candidate, or processed before; else None."""
    if view.state != "candidate":
        outcome = "failed" if view.state == "refused" else "skipped"
        return JobViewOutcome(sop_uid=view.sop_uid, outcome=outcome, reason=view.state_reason)
    folder = publisher.view_folder(view)
    if folder.is_dir():
        return JobViewOutcome(sop_uid=view.sop_uid, outcome="done", folder=publisher.data.relative(folder))
    return None

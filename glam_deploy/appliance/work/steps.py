"""The steps of one view: read, compute, write."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from glam_deploy.appliance.state.jobs import JobView, JobViewOutcome
from glam_deploy.appliance.work.heartbeat import Heartbeat
from glam_deploy.appliance.work.predictor import Predictor, error_text
from glam_deploy.appliance.work.result_objects import Publisher
from glam_deploy.appliance.work.view_reader import Stopped, ViewReaders
from glam_deploy.errors import BackendRunError, NotForThisNetwork
from glam_deploy.records import Mammogram
from glam_deploy.runtime.result import Result


@dataclass(frozen=True, kw_only=True)
class PreparedView:
    """A view after reading and preprocessing."""

    view: JobView
    mammogram: Mammogram
    prepared: Any


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
        """The computed views. The next view is read before the last one is yielded for writing, so that writing delays
        neither reading nor the network.
        """
        prepared_view = next(views, None)
        while prepared_view:
            self.idle.clear()
            try:
                computed_view = self.compute(prepared_view)
            finally:
                self.idle.set()
            prepared_view = next(views, None)
            yield computed_view

    def compute(self, prepared_view: PreparedView | JobViewOutcome) -> ComputedView | JobViewOutcome:
        if isinstance(prepared_view, JobViewOutcome):
            return prepared_view
        started = time.monotonic()
        try:
            with self.heartbeat.computing():
                result = self.predictor(prepared_view.prepared)
        except BackendRunError:
            raise
        except Exception as error:
            return _failure(prepared_view.view, error)
        return ComputedView(
            view=prepared_view.view,
            mammogram=prepared_view.mammogram,
            result=result,
            seconds=time.monotonic() - started,
        )

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


def _failure(view: JobView, error: Exception) -> JobViewOutcome:
    outcome = "skipped" if isinstance(error, NotForThisNetwork) else "failed"
    return JobViewOutcome(sop_uid=view.sop_uid, outcome=outcome, reason=error_text(error))


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

"""The steps of one view: known already, read, computed, written."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from glam_deploy.appliance.state.jobs import JobView, Settled
from glam_deploy.appliance.work.heartbeat import Heartbeat
from glam_deploy.appliance.work.network import words
from glam_deploy.appliance.work.predictor import Predictor
from glam_deploy.appliance.work.publish import Publisher
from glam_deploy.appliance.work.reading import Stopped, ViewReader
from glam_deploy.errors import BackendRunError, NotForThisNetwork
from glam_deploy.records import Mammogram
from glam_deploy.runtime.result import Result


@dataclass(frozen=True, kw_only=True)
class Read:
    """A view with what the host has done before the network."""

    view: JobView
    mammogram: Mammogram
    prepared: Any


@dataclass(frozen=True, kw_only=True)
class Computed:
    """A view with what the network says."""

    view: JobView
    mammogram: Mammogram
    result: Result
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Reading, computing and writing of one view. What goes wrong with it is handed on, and the others go on."""

    study_uid: str
    predictor: Predictor
    publisher: Publisher
    heartbeat: Heartbeat
    reader: ViewReader
    idle: threading.Event = field(default_factory=threading.Event)
    """Set while the network has no view."""

    def read(self, view: JobView) -> Read | Settled:
        try:
            rules = self.publisher.config.accept
            path = self.publisher.data.root / view.path
            mammogram = self.reader.read(path, for_processing=rules.for_processing)
            return Read(view=view, mammogram=mammogram, prepared=self.predictor.prepare(mammogram))
        except (Stopped, OSError):  # neither is the view's fault
            raise
        except Exception as error:
            return _gone_wrong(view, error)

    def computed(self, views: Iterator[Read | Settled]) -> Iterator[Computed | Settled]:
        """Each as the network makes it. The next one is there before the last is handed on to be written, which would
        hold up its reading, and the network with it.
        """
        seen = next(views, None)
        while seen:
            self.idle.clear()
            try:
                found = self.compute(seen)
            finally:
                self.idle.set()
            seen = next(views, None)
            yield found

    def compute(self, seen: Read | Settled) -> Computed | Settled:
        if isinstance(seen, Settled):
            return seen
        started = time.monotonic()
        try:
            with self.heartbeat.computing():
                result = self.predictor(seen.prepared)
        except BackendRunError:
            raise
        except Exception as error:
            return _gone_wrong(seen.view, error)
        return Computed(view=seen.view, mammogram=seen.mammogram, result=result, seconds=time.monotonic() - started)

    def write(self, computed: Computed | Settled) -> Settled:
        if isinstance(computed, Settled):
            return computed
        view = computed.view
        try:
            folder = self.publisher.publish_view(self.study_uid, view, computed.mammogram, computed.result)
        except OSError:  # the disk's fault
            raise
        except Exception as error:
            return _gone_wrong(view, error)
        relative = self.publisher.data.relative(folder)
        return Settled(sop_uid=view.sop_uid, outcome="done", folder=relative, seconds=computed.seconds)


def _gone_wrong(view: JobView, error: Exception) -> Settled:
    outcome = "skipped" if isinstance(error, NotForThisNetwork) else "failed"
    return Settled(sop_uid=view.sop_uid, outcome=outcome, reason=words(error))


def is_settled(view: JobView, publisher: Publisher) -> bool:
    """A view that another network has done, or whose results have been cleaned away, is done anew."""
    if view.outcome == "done":
        folder = publisher.view_folder(view)
        return folder.is_dir() and view.folder == publisher.data.relative(folder)
    return view.outcome is not None


def known_outcome(view: JobView, publisher: Publisher) -> Settled | None:
    """What became of a view that needs no network: not let in, or done before."""
    if view.state != "candidate":
        outcome = "failed" if view.state == "refused" else "skipped"
        return Settled(sop_uid=view.sop_uid, outcome=outcome, reason=view.state_reason)
    folder = publisher.view_folder(view)
    if folder.is_dir():
        return Settled(sop_uid=view.sop_uid, outcome="done", folder=publisher.data.relative(folder))
    return None

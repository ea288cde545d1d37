"""Fetching of one item after another: searches become studies, studies become received instances.

What is here already is not retrieved again, so that an item that was interrupted continues where it was.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from urllib.parse import urlsplit

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.config import Config, Fetch
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.fetch.archive import ArchiveClient
from glam_deploy.appliance.fetch.windows import Windows, local_now
from glam_deploy.appliance.ingest import Ingest, Status
from glam_deploy.appliance.state import fetches, overview, studies
from glam_deploy.appliance.state.database import HEARTBEAT_TIMEOUT_S, MonotonicClock
from glam_deploy.appliance.state.fetches import FetchItem
from glam_deploy.appliance.state.priority import fetched_waiting, live_exams_wait
from glam_deploy.appliance.targets import TargetHealth
from glam_deploy.dicom.net.archive import ArchiveSession, ImageRef, StoppedError
from glam_deploy.dicom.net.associations import Receipt, Upload
from glam_deploy.dicom.part10 import Claim
from glam_deploy.dicom.uids import valid_uid
from glam_deploy.errors import PeerBroke, PeerDeclined, PeerError, counted, fault

log = logging.getLogger(__name__)

ABSENT = "the archive does not have this study"
NOTHING_FOUND = "the archive has no mammography with this accession number"
WITHOUT_MAMMOGRAPHY = "it has no mammograms"
WINDOW_GRACE = timedelta(minutes=10)
"""A study that is under way at the end of a window is finished within this time, else continued in the next window."""


class _NoRoomError(Exception):
    """The disk is full: nothing more can be received at present."""


@dataclass(kw_only=True)
class Fetcher:
    """Fetches through `client`; used by the one thread that owns `connection`. Fetchers of a process share the rest."""

    config: Config
    fetch: Fetch
    data: DataFolder
    connection: sqlite3.Connection
    monotonic: MonotonicClock
    client: ArchiveClient
    ingest: Ingest
    audit: Audit
    health: TargetHealth[FetchItem]
    """State of the archive."""
    stop: threading.Event
    clock: Callable[[], datetime] = local_now
    """The local time."""

    def __post_init__(self) -> None:
        self._windows = Windows.parse(self.fetch.windows)
        self._current: FetchItem | None = None
        host = urlsplit(self.fetch.url).hostname if self.fetch.url else self.fetch.host
        self._sender = f"{self.fetch.ae_title}@{host}" if self.fetch.ae_title else str(host)

    def why_paused(self) -> str:
        """Why nothing is fetched at present, apart from the state of the archive; "" if something may be."""
        fetch = self.fetch
        if not self._windows.is_open(self.clock()):
            return f"outside of the times {', '.join(fetch.windows)} (fetch.windows)"
        if live_exams_wait(self.connection):
            return "exams that were sent are processed first"
        if (waiting := fetched_waiting(self.connection)) >= fetch.most_waiting:
            return f"{waiting} fetched studies wait to be processed (fetch.most_waiting)"
        if self.data.free_bytes() < self.config.receive.reserve_bytes:
            return "the disk has less free space than receive.reserve_bytes"
        return self._why_no_receiver() if fetch.moves else ""

    def _why_no_receiver(self) -> str:
        receiver = overview.components(self.connection, self.monotonic()).get("receiver")
        runs = receiver is not None and receiver.state == "ready" and receiver.age < HEARTBEAT_TIMEOUT_S
        return "" if runs else "the receiver, to which the archive sends, does not run or is not ready"

    def step(self) -> bool:
        """Try the next item that is due; False if there is none, or nothing may be fetched."""
        if self._current:  # its end could not be recorded because of a full disk
            self._release("state.db could not be written")
        if fetches.take_retry_request(self.connection):
            self.health.retry_now()
        if not self.health.may_try(self.monotonic()) or self.why_paused():
            return False
        self._current = fetches.claim(self.connection, self.monotonic())
        if self._current is None:
            return False
        self._attempt(self._current)
        self._current = None
        return True

    def _attempt(self, item: FetchItem) -> None:
        try:
            self._search(item) if item.kind != "study" else self._fetch_study(item)
        except PeerBroke as error:
            self._handle_interruption(item, str(error))
        except PeerDeclined as error:
            self._count_failed_attempt(item, str(error))
        except PeerError as error:
            self._handle_unreachable(str(error))
        except _NoRoomError as error:
            self._release(str(error), self.monotonic() + self.fetch.first_retry_s)
        except StoppedError:
            self._release(None)
        except sqlite3.Error:
            raise
        except Exception as error:  # a fault of glam-deploy or of a library must not block the other items
            self._count_failed_attempt(item, f"a fault while fetching: {fault(error)}")
        else:
            self.health.record_success(item.id)

    def _may_go_on(self, item: FetchItem) -> bool:
        """Whether an item that was begun is still wanted, and its window open or over since a short time only."""
        now = self.clock()
        is_time = self._windows.is_open(now) or self._windows.is_open(now - WINDOW_GRACE)
        return is_time and fetches.is_current(self.connection, item)

    def _session(self, item: FetchItem) -> ArchiveSession:
        return self.client.session(lambda: self._may_go_on(item))

    def _search(self, item: FetchItem) -> None:
        with self._session(item) as session:
            found = session.studies(**{item.kind: item.value})
        count, refused = len(found.studies), self._refused_text("study found", "studies found", found.refused)
        if not count and (refused or item.kind == "accession"):
            self._give_up(item, refused or NOTHING_FOUND)
            return
        pseudonym = self.audit.pseudonym
        new = fetches.finish_search(self.connection, item, found.studies, pseudonym, reason=refused)
        refusals = found.refused or None
        self.audit.write("fetch_searched", kind=item.kind, item=item.id, found=count, new=new, refused=refusals)

    def _refused_text(self, one: str, many: str, count: int) -> str | None:
        if not count:
            return None
        which = f"1 {one} was" if count == 1 else f"{count} {many} were"
        return f"{which} left out, because the archive states no valid UIDs there: correct them in the archive"

    def _fetch_study(self, item: FetchItem) -> None:
        with self._session(item) as session:
            content = session.content(item.value)
            if not content.series:
                self._give_up(item, ABSENT)
                return
            reasons = self._retrieve_missing(session, item, content.images)
        if reasons is None:
            return
        count = len(content.images)
        left = sum(not self._is_here(image) for image in content.images)
        if left:
            why = f": {reasons[0]}" if reasons else ", although the archive reports success"
            self._count_failed_attempt(item, f"{left} of {counted(count, 'object')} did not arrive{why}")
        elif refused := self._refused_text("series or object", "series or objects", content.refused):
            self._count_failed_attempt(item, refused)
        elif fetches.finish_study(self.connection, item, count, None if count else WITHOUT_MAMMOGRAPHY):
            self.audit.write("fetched", study=item.value, objects=count)

    def _retrieve_missing(
        self, session: ArchiveSession, item: FetchItem, images: Sequence[ImageRef]
    ) -> list[str] | None:
        """Retrieve what is not here, or is here but refused as damaged; the reasons of failures.

        None if the item is given back meanwhile.
        """
        reasons = []
        for image in images:
            if self._is_here(image, usable=True):
                continue
            if self.stop.is_set():
                self._release(None)
                return None
            if not self._may_go_on(item):
                raise StoppedError
            try:
                receipt = session.retrieve(image, partial(self._begin, image))
            except PeerDeclined as error:
                reasons.append(str(error))
                continue
            if receipt and receipt.status != Status.SUCCESS:
                reasons.append(self._refusal(receipt))
        return reasons

    def _begin(self, image: ImageRef, claim: Claim | None) -> Upload:
        return self.ingest.open(
            sender=self._sender, claim=claim, study=image.study_uid, instance=image.sop_uid, fetched=True
        )

    def _refusal(self, receipt: Receipt) -> str:
        reason = f"it was refused here: {receipt.reason}"
        if receipt.status == Status.OUT_OF_RESOURCES:
            raise _NoRoomError(reason)
        return reason

    def _is_here(self, image: ImageRef, *, usable: bool = False) -> bool:
        return studies.is_here(self.connection, valid_uid("SOPInstanceUID", image.sop_uid), usable=usable)

    def _handle_interruption(self, item: FetchItem, reason: str) -> None:
        try:
            self.client.check_reachable()
        except PeerError:
            self._handle_unreachable(reason)
        else:
            self._count_failed_attempt(item, reason)

    def _handle_unreachable(self, reason: str) -> None:
        """Give the item back; nothing is fetched until the archive is tried again."""
        self.health.record_unreachable(self.monotonic(), reason)
        self._release(reason)
        wait = self.health.not_before - self.monotonic()
        log.warning("fetching waits %.0f s for the archive (%s)", wait, reason)

    def _release(self, reason: str | None, next_try: float = 0) -> None:
        if self._current:
            fetches.release(self.connection, self._current, reason=reason, next_try=next_try)
            self._current = None

    def _give_up(self, item: FetchItem, reason: str) -> None:
        self._count_failed_attempt(item, reason, attempts=1)

    def _count_failed_attempt(self, item: FetchItem, reason: str, attempts: int | None = None) -> None:
        next_try = self.monotonic() + self.health.backoff.after(item.attempts + 1)
        state = fetches.fail(self.connection, item, reason, next_try=next_try, attempts=attempts or self.fetch.attempts)
        log.warning("item %d (%s %s) was not fetched: %s", item.id, item.kind, item.name, reason)
        if state == "dead":
            self.audit.write("fetch_dead", kind=item.kind, item=item.id, reason=reason)

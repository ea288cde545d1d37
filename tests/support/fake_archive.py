"""An archive in this process (pynetdicom's SCP of C-FIND, C-GET and C-MOVE), which can be told to misbehave."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import DataElement, dcmread
from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    DigitalMammographyXRayImageStorageForPresentation,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from glam_deploy.dicom.net.peer import silence_pynetdicom

AE_TITLE = "FAKEARCHIVE"
PLAIN = [ImplicitVRLittleEndian, ExplicitVRLittleEndian]
_UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


@dataclass
class FakeArchive:
    """What it holds, and how it behaves."""

    held: list[Dataset] = field(default_factory=list)
    ignores: tuple[str, ...] = ()
    """Keywords by which it does not match."""
    silent: tuple[str, ...] = ()
    """Keywords that its responses do not have."""
    strange: dict[str, str] = field(default_factory=dict)
    """Level -> identifier of a further match of each search at this level."""
    find_status: int = 0
    """Of every C-FIND, in place of matches."""
    statuses: dict[str, int] = field(default_factory=dict)
    """SOP Instance UID -> status of its retrieval."""
    lies: set[str] = field(default_factory=set)
    """Reports success and sends nothing."""
    aborts: set[str] = field(default_factory=set)
    hangs: set[str] = field(default_factory=set)
    stalls: set[str] = field(default_factory=set)
    """Sends pending responses without end, and no object."""
    pushed: Callable[[], Iterable[Dataset]] = lambda: ()
    """Objects that it sends before the one that was asked for."""
    models: tuple[str, ...] = ("find", "get", "move")
    classes: tuple[str, ...] = (DigitalMammographyXRayImageStorageForPresentation,)
    """Storage SOP classes that it sends."""
    at_get: Callable[[str], None] = lambda uid: None
    """Called before an object is sent."""
    asked: list[str] = field(default_factory=list)
    """SOP Instance UIDs of all retrievals, in order."""
    destination: tuple[str, int] | None = None
    """Address of GLAM for C-MOVE; None: unknown."""
    port: int = 0
    wake: threading.Event = field(default_factory=threading.Event)

    def put(self, *files: Path) -> None:
        self.held += [dcmread(file) for file in files]

    @property
    def keys(self) -> dict[str, object]:
        """The table [fetch]."""
        return {"ae_title": AE_TITLE, "host": "127.0.0.1", "port": self.port}

    @contextmanager
    def running(self) -> Iterator["FakeArchive"]:
        """Listening at `port` (at a free one, which is then kept, where that is 0)."""
        silence_pynetdicom()
        handlers = [(evt.EVT_C_FIND, self._find), (evt.EVT_C_GET, self._get), (evt.EVT_C_MOVE, self._move)]
        server = self._entity().start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
        self.port = server.socket.getsockname()[1]
        try:
            yield self
        finally:
            self.wake.set()
            server.shutdown()

    def _entity(self) -> AE:
        entity = AE(AE_TITLE)
        models = {
            "find": StudyRootQueryRetrieveInformationModelFind,
            "get": StudyRootQueryRetrieveInformationModelGet,
            "move": StudyRootQueryRetrieveInformationModelMove,
        }
        for model in (Verification, *(models[name] for name in self.models)):
            entity.add_supported_context(model)
        for sop_class in self.classes:
            entity.add_supported_context(sop_class, PLAIN, scu_role=True, scp_role=True)
        if self.destination:
            entity.add_requested_context(DigitalMammographyXRayImageStorageForPresentation, PLAIN)
        return entity

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        if self.find_status:
            yield self.find_status, None
            return
        query = event.identifier
        seen = set()
        if (uid := self.strange.get(query.QueryRetrieveLevel)) is not None:
            match = self._match(query, self.held[0])
            unique = _UNIQUE[query.QueryRetrieveLevel]
            match[unique] = DataElement(unique, "UI", uid, validation_mode=IGNORE)
            yield 0xFF00, match
        for held in self.held:
            unique = held[_UNIQUE[query.QueryRetrieveLevel]].value
            if unique not in seen and self._matches(query, held):
                seen.add(unique)
                yield 0xFF00, self._match(query, held)

    def _matches(self, query: Dataset, held: Dataset) -> bool:
        wanted = [element for element in query if element.value and element.keyword != "QueryRetrieveLevel"]
        return all(
            element.keyword in self.ignores or element.value == self._value(held, element.keyword) for element in wanted
        )

    def _match(self, query: Dataset, held: Dataset) -> Dataset:
        match = Dataset()
        for element in query:
            if element.keyword not in (*self.silent, "QueryRetrieveLevel"):
                setattr(match, element.keyword, self._value(held, element.keyword))
        match.QueryRetrieveLevel = query.QueryRetrieveLevel
        return match

    @staticmethod
    def _value(held: Dataset, keyword: str) -> Any:
        return held.Modality if keyword == "ModalitiesInStudy" else held.get(keyword, "")

    def _get(self, event: evt.Event) -> Iterator[Any]:
        yield from self._objects(event)

    def _move(self, event: evt.Event) -> Iterator[Any]:
        if self.destination is None or event.move_destination != "GLAM":
            yield None, None
            return
        yield (*self.destination, {"ae_title": "GLAM"})
        yield from self._objects(event)

    def _objects(self, event: evt.Event) -> Iterator[Any]:
        uid = str(event.identifier.SOPInstanceUID)
        self.asked.append(uid)
        self.at_get(uid)
        if uid in self.aborts:
            event.assoc.abort()
            return
        if uid in self.hangs:
            self.wake.wait(60)
        found = [] if uid in self.lies else [held for held in self.held if held.SOPInstanceUID == uid]
        if uid in self.stalls:
            while event.assoc.is_established and not self.wake.wait(0.05):
                self._send_pending(event)
            return
        sent = [*self.pushed(), *found]
        yield len(sent)
        if uid in self.statuses:
            yield self.statuses[uid], None
            return
        for held in sent:
            yield 0xFF00, held

    @staticmethod
    def _send_pending(event: evt.Event) -> None:
        pending = type(event.request)()
        pending.MessageIDBeingRespondedTo = event.request.MessageID
        pending.AffectedSOPClassUID = event.request.AffectedSOPClassUID
        pending.Status = 0xFF00
        pending.NumberOfRemainingSuboperations = 1
        event.assoc.dimse.send_msg(pending, event.context.context_id)

"""A PACS in this process (pynetdicom's SCP), which can be told to misbehave."""

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    DigitalMammographyXRayImageStorageForPresentation,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from glam_deploy.dicom.net.peer import Peer, silence_pynetdicom

AE_TITLE = "FAKEPACS"
PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


def _nothing() -> None:
    """Nothing happens."""


@dataclass
class FakePacs:
    """What it holds, and how it behaves."""

    syntaxes: Sequence[str] = (*PLAIN, JPEG2000Lossless)
    classes: Sequence[str] = (DigitalMammographyXRayImageStorageForPresentation,)
    """Storage SOP classes that it accepts."""
    finds: bool = True
    commits: str = ""
    """"same": reports on the association that asked; "later": keeps `report`; "": takes no request."""
    statuses: dict[str, int] = field(default_factory=dict)
    """SOP Instance UID -> status of its C-STORE, in place of success."""
    status: int | None = None
    """Of every C-STORE."""
    loses: set[str] = field(default_factory=set)
    """Answers with success and keeps nothing, once."""
    aborts: set[str] = field(default_factory=set)
    hangs: set[str] = field(default_factory=set)
    held: dict[str, Dataset] = field(default_factory=dict)
    arrivals: list[str] = field(default_factory=list)
    """UIDs of every C-STORE, in order."""
    associations: int = 0
    report: Dataset = field(default_factory=Dataset)
    """The latest storage commitment report."""
    at_store: dict[int, Callable[[], None]] = field(default_factory=dict)
    """What happens at the first, second, ... C-STORE, when its object is held and not answered yet."""
    at_find: dict[int, Callable[[], None]] = field(default_factory=dict)
    finds_so_far: int = 0
    port: int = 0
    wake: threading.Event = field(default_factory=threading.Event)
    """Set: what hangs goes on."""

    def peer(self, **changes: Any) -> Peer:
        return Peer(**{"ae_title": AE_TITLE, "host": "127.0.0.1", "port": self.port, "timeout_s": 5} | changes)

    @contextmanager
    def running(self, context: ssl.SSLContext | None = None) -> Iterator["FakePacs"]:
        """Listening at `port` (at a free one, which is then kept, where that is 0)."""
        silence_pynetdicom()
        server = self._entity().start_server(
            ("127.0.0.1", self.port), block=False, ssl_context=context, evt_handlers=self._handlers()
        )
        self.port = server.socket.getsockname()[1]
        try:
            yield self
        finally:
            self.wake.set()
            threading.Thread(target=server.shutdown).start()  # takes half a second, which nobody waits for

    def _entity(self) -> AE:
        entity = AE(AE_TITLE)
        entity.require_called_aet = True
        entity.add_supported_context(Verification)
        for sop_class in self.classes:
            entity.add_supported_context(sop_class, list(self.syntaxes))
        if self.finds:
            entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        if self.commits:
            entity.add_supported_context(StorageCommitmentPushModel)
        return entity

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_ESTABLISHED, self._established),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_ACTION, self._commit),
        ]

    def _established(self, event: evt.Event) -> None:
        self.associations += 1

    def _store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.arrivals.append(uid)
        if uid in self.aborts:
            event.assoc.abort()
            return 0
        if uid in self.hangs:
            self.wake.wait(60)
        status = self.statuses.get(uid, self.status or 0)
        if status >> 12 in (0, 0xB) and uid not in self.loses:
            self.held[uid] = event.dataset
            self.held[uid].file_meta = event.file_meta
        self.loses.discard(uid)
        self.at_store.get(len(self.arrivals), _nothing)()
        return status

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        wanted = event.identifier
        self.finds_so_far += 1
        self.at_find.get(self.finds_so_far, _nothing)()
        for uid, held in list(self.held.items()):
            if (held.StudyInstanceUID, held.SeriesInstanceUID) == (wanted.StudyInstanceUID, wanted.SeriesInstanceUID):
                match = Dataset()
                match.QueryRetrieveLevel, match.SOPInstanceUID = "IMAGE", uid
                yield 0xFF00, match

    def _commit(self, event: evt.Event) -> tuple[int, None]:
        asked = event.action_information
        found = {True: [], False: []}
        for item in asked.ReferencedSOPSequence:
            found[item.ReferencedSOPInstanceUID in self.held].append(item)
        self.report = Dataset()
        self.report.TransactionUID = asked.TransactionUID
        self.report.ReferencedSOPSequence = found[True]
        if found[False]:
            self.report.FailedSOPSequence = found[False]
        if self.commits == "same":
            threading.Thread(target=self._report, args=(event.assoc,)).start()
        return 0, None

    def _report(self, association: Any) -> None:
        kind = 2 if "FailedSOPSequence" in self.report else 1
        association.send_n_event_report(
            self.report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )

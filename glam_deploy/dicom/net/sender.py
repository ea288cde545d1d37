"""DIMSE client (SCU): C-ECHO, C-STORE, C-FIND to verify delivery, and requests for storage commitment."""

import queue
import time
from collections.abc import Iterator, Mapping, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from glam_deploy.dicom.net import delivery, files
from glam_deploy.dicom.net.client import PLAIN, ClientAssociation
from glam_deploy.dicom.net.delivery import SLOWEST, Answer, Commitment, Item, Outcome
from glam_deploy.dicom.net.files import read_report, reported, request_of
from glam_deploy.dicom.net.peer import Peer
from glam_deploy.errors import DicomError, PeerDeclined

Kind = tuple[str, str]
"""SOP class and transfer syntax of an object, UIDs."""

_FIND = StudyRootQueryRetrieveInformationModelFind


def echo(peer: Peer) -> float:
    """Verify the peer with C-ECHO; returns the seconds from connecting to the end of the association.

    Raises PeerError with the cause of a failure.
    """
    start = time.monotonic()
    with DimseSession(peer) as session:
        session.echo()
    return time.monotonic() - start


def not_accepted(peer: Peer, kinds: Mapping[str, Kind], *, query: bool, commitment: bool) -> dict[str, str]:
    """What `peer` accepts in no transfer syntax when all is proposed as for a delivery of `kinds`.

    Key of `kinds`, "query" or "commitment" -> name of the SOP class. Raises PeerError.
    """
    with DimseSession(peer, kinds=list(kinds.values()), query=query, commitment=commitment) as session:
        refused = session.not_accepted()
    classes = {name: sop_class for name, (sop_class, _) in kinds.items()}
    classes |= {"query": str(_FIND), "commitment": str(StorageCommitmentPushModel)}
    return {name: UID(sop_class).name for name, sop_class in classes.items() if sop_class in refused}


class DimseSession(ClientAssociation):
    """One association with `peer` for `items`: a `delivery.Session`.

    Proposes each SOP class of `items`, and of `kinds`, in the transfer syntax of its file and, in a separate context,
    uncompressed; with `query` the C-FIND of `holds`, with `commitment` storage commitment. Verification is always
    proposed, to distinguish a peer that accepts no other context from a peer that rejects the association. Entering
    raises PeerError; exiting releases the association, or aborts it after an error. Not thread-safe.
    """

    def __init__(
        self,
        peer: Peer,
        items: Sequence[Item] = (),
        *,
        kinds: Sequence[Kind] = (),
        query: bool = False,
        commitment: bool = False,
    ) -> None:
        wanted = {pair: build_context(*pair) for pair in (*kinds, *map(_kind, items)) if pair}
        plain = {sop_class: build_context(sop_class, PLAIN) for sop_class, _ in wanted}
        services = [Verification, *([_FIND] if query else []), *([StorageCommitmentPushModel] if commitment else [])]
        contexts = [*(build_context(service, PLAIN) for service in services), *wanted.values(), *plain.values()]
        super().__init__(peer, contexts, handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)])
        self._reports: queue.SimpleQueue[Commitment] = queue.SimpleQueue()

    def echo(self) -> None:
        """Send C-ECHO. Raises PeerError unless the response is success."""
        status = self._status(self._association.send_c_echo, "C-ECHO")
        if status != delivery.SUCCESS:
            raise PeerDeclined(f"{self.peer} answers C-ECHO with status 0x{status:04X}, expected 0x0000")

    def store(self, item: Item) -> Answer:
        """C-STORE of one object in its transfer syntax, or decompressed if the peer only accepts that.

        Raises PeerBroke if there is no response.
        """
        try:
            dataset = files.whole(item)
            is_accepted = self._fitted(dataset)
        except DicomError as error:
            return files.unreadable(item, error)
        if not is_accepted:
            reason = (
                f"the target accepts no {UID(dataset.SOPClassUID).name} in any transfer syntax that was proposed; "
                "allow it there, or leave it out of `objects` of this target"
            )
            return Answer(sop_uid=item.sop_uid, outcome=Outcome.REFUSED, reason=reason)
        self._association.dimse_timeout = self.peer.timeout_s + item.path.stat().st_size / SLOWEST
        outcome, reason = delivery.stored(self._status(lambda: self._association.send_c_store(dataset), "C-STORE"))
        return Answer(sop_uid=item.sop_uid, outcome=outcome, reason=reason)

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        """SOP Instance UIDs of `items` that C-FIND at IMAGE level finds (PS3.4 C.6.2), with one query per series.

        Raises PeerDeclined if the peer does not accept queries, PeerBroke if there is no response.
        """
        if not self._takes(_FIND, *PLAIN):
            raise PeerDeclined(
                f"{self.peer} offers no Study Root C-FIND to {self.peer.calling_ae_title}: allow it there, or set "
                "`query = false` for this target"
            )
        found = {uid for study_uid, series_uid in files.series(items) for uid in self._find(study_uid, series_uid)}
        return frozenset(item.sop_uid for item in items) & found

    def commit(self, items: Sequence[Item], transaction_uid: str, *, wait_s: float) -> Commitment | None:
        """Request storage commitment for `items` and wait for the report; None if none is received within `wait_s` s.

        A later report may come on an association that the peer opens to the requesting AE. Raises PeerDeclined if the
        peer does not accept the request, PeerBroke if there is no response.
        """
        if not self._takes(StorageCommitmentPushModel, *PLAIN):
            raise PeerDeclined(
                f"{self.peer} offers no storage commitment to {self.peer.calling_ae_title}: allow it there, or set "
                "`commitment = false` for this target"
            )
        request = request_of([(str(files.header(item).SOPClassUID), item.sop_uid) for item in items], transaction_uid)
        model, instance = StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        status = self._status(lambda: self._association.send_n_action(request, 1, model, instance)[0], "N-ACTION")
        if status != delivery.SUCCESS:
            raise PeerDeclined(f"{self.peer} answers a request for storage commitment with status 0x{status:04X}")
        return self._report(transaction_uid, time.monotonic() + wait_s)

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        self._reports.put(read_report(reported(event)))
        return delivery.SUCCESS, None

    def _report(self, transaction_uid: str, deadline: float) -> Commitment | None:
        while (left := deadline - time.monotonic()) > 0 and self._association.is_established:
            try:
                report = self._reports.get(timeout=min(left, 0.1))
            except queue.Empty:
                continue
            if report.transaction_uid == transaction_uid:
                return report
        return None

    def _fitted(self, dataset: Dataset) -> bool:
        """Whether the peer accepts `dataset`, which is decompressed if necessary; pynetdicom converts VR encodings."""
        if self._takes(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID):
            return True
        if not self._takes(dataset.SOPClassUID, *PLAIN):
            return False
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            files.decompress(dataset)
        return True

    def _find(self, study_uid: str, series_uid: str) -> Iterator[str]:
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID, query.SeriesInstanceUID, query.SOPInstanceUID = study_uid, series_uid, ""
        for match in self._matches(query, _FIND, seconds=self.peer.timeout_s, what="one series"):
            yield str(match.get("SOPInstanceUID", ""))


def _kind(item: Item) -> Kind | None:
    """The kind of a file, None if it cannot be read, which `store` reports."""
    try:
        header = files.header(item)
    except DicomError:
        return None
    return str(header.SOPClassUID), str(header.file_meta.TransferSyntaxUID)

"""Sending over DIMSE: C-ECHO, C-STORE, the C-FIND that proves delivery, and requests for storage commitment (SCU)."""

import queue
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)
from pynetdicom.transport import AddressInformation, AssociationSocket

from glam_deploy.dicom.mammography import IMPLEMENTATION_UID
from glam_deploy.dicom.net import delivery, files
from glam_deploy.dicom.net.associations import LastingStateMachine
from glam_deploy.dicom.net.bounded_socket import MAX_PDU
from glam_deploy.dicom.net.delivery import SLOWEST, Answer, Commitment, Item, Outcome
from glam_deploy.dicom.net.files import read_report, reported, request_of
from glam_deploy.dicom.net.peer import Peer, hush, tls_context, why_unreachable
from glam_deploy.errors import DicomError, PeerBroke, PeerDeclined, PeerError

MOST_MATCHES = 10_000
"""Instances in a series of results; ours have ten or so."""

MAX_REPLY = 1 << 17
"""Bytes of the longest answer that is collected: command set and data set together."""
_PIECE = 1 << 14

_PLAIN: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_FIND = StudyRootQueryRetrieveInformationModelFind


def echo(peer: Peer) -> float:
    """Ask the peer for a sign of life (C-ECHO): seconds from connecting to the end of the association.

    Raises PeerError, which says why there is none.
    """
    start = time.monotonic()
    with DimseSession(peer) as session:
        session.echo()
    return time.monotonic() - start


class DimseSession:
    """One association with `peer` about `items`: a `delivery.Session`.

    Proposes each SOP class of `items` as its file is encoded and, apart from that, uncompressed; with `query` the
    C-FIND of `holds`, with `commitment` what `commit` needs. Verification is always proposed, so that a peer that takes
    none of the rest is told apart from one that lets nobody in. Entering raises PeerError; leaving releases the
    association, or aborts it after an error. For one thread.
    """

    def __init__(
        self, peer: Peer, items: Sequence[Item] = (), *, query: bool = False, commitment: bool = False
    ) -> None:
        self.peer = peer
        wanted = {pair: build_context(*pair) for item in items if (pair := _kind(item))}
        plain = {sop_class: build_context(sop_class, _PLAIN) for sop_class, _ in wanted}
        services = [Verification, *([_FIND] if query else []), *([StorageCommitmentPushModel] if commitment else [])]
        self._contexts: list[PresentationContext] = [
            *(build_context(service, _PLAIN) for service in services), *wanted.values(), *plain.values()]  # fmt: skip
        self._reports: queue.SimpleQueue[Commitment] = queue.SimpleQueue()

    def __enter__(self) -> "DimseSession":
        hush()
        self._association = self._associate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_well = error is None or isinstance(error, PeerDeclined)
        (self._association.release if is_well else self._association.abort)()

    def echo(self) -> None:
        """Raises PeerError where the peer does not answer well."""
        status = self._status(self._association.send_c_echo, "C-ECHO")
        if status != delivery.SUCCESS:
            raise PeerDeclined(f"{self.peer} answers C-ECHO with status 0x{status:04X}, expected 0x0000")

    def store(self, item: Item) -> Answer:
        """C-STORE of one object: as its file is encoded, or decompressed where the peer takes it only so.

        Raises PeerBroke where no answer comes.
        """
        try:
            dataset = files.whole(item)
            taken = self._fitted(dataset)
        except DicomError as error:
            return files.unreadable(item, error)
        if not taken:
            reason = f"it takes no {UID(dataset.SOPClassUID).name} in any encoding that was proposed"
            return Answer(sop_uid=item.sop_uid, outcome=Outcome.REFUSED, reason=reason)
        self._association.dimse_timeout = self.peer.timeout_s + item.path.stat().st_size / SLOWEST
        outcome, reason = delivery.stored(self._status(lambda: self._association.send_c_store(dataset), "C-STORE"))
        return Answer(sop_uid=item.sop_uid, outcome=outcome, reason=reason)

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        """Those UIDs of `items` that C-FIND at IMAGE level shows (PS3.4 C.6.2): one query a series.

        Raises PeerDeclined where the peer offers no query to us, PeerBroke where no answer comes.
        """
        if not self._takes(_FIND, *_PLAIN):
            raise PeerDeclined(
                f"{self.peer} offers no Study Root C-FIND to {self.peer.calling_ae_title}: allow it there, or set "
                "`query = false` for this target"
            )
        found = {uid for study_uid, series_uid in files.series(items) for uid in self._find(study_uid, series_uid)}
        return frozenset(item.sop_uid for item in items) & found

    def commit(self, items: Sequence[Item], transaction_uid: str, *, wait_s: float) -> Commitment | None:
        """Ask for storage commitment of `items` and wait for the report; None where it did not come within `wait_s`.

        It may still come, on an association that the peer opens to the AE that asked. Raises PeerDeclined where the
        peer takes no such request, PeerBroke where no answer comes.
        """
        if not self._takes(StorageCommitmentPushModel, *_PLAIN):
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

    def _associate(self) -> Association:
        peer = self.peer
        entity = _Entity(peer.calling_ae_title)
        entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = peer.timeout_s
        entity.network_timeout = None  # each step here has a limit of its own
        entity.implementation_class_uid, entity.implementation_version_name = IMPLEMENTATION_UID, "GLAM_DEPLOY"
        security = None if peer.tls is None else (tls_context(peer.tls), peer.host)
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_CONN_OPEN, self._on_connection),
            (evt.EVT_N_EVENT_REPORT, self._on_report),
        ]
        try:
            association = entity.associate(
                peer.host, peer.port, self._contexts, peer.ae_title, tls_args=security, evt_handlers=handlers
            )
        except OSError as error:
            raise PeerError(f"{peer} cannot be reached: {error.strerror or type(error).__name__}") from None
        if not association.is_established:
            raise PeerError(f"{peer} cannot be reached: {self._why(association)}")
        return association

    def _why(self, association: Association) -> str:
        answer = association.acceptor.primitive
        if association.is_rejected and answer is not None:
            return f"it rejected {self.peer.calling_ae_title} ({answer.reason_str}): check the AE titles on both sides"
        if answer is not None:
            return "it accepted the association, but none of the presentation contexts, not even Verification"
        return why_unreachable(self.peer)

    def _on_connection(self, event: evt.Event) -> None:
        """Without a limit, a peer that stops reading would block pynetdicom's thread, and `abort` with it, for ever.

        Without NODELAY, each message waits 40 ms for the peer's delayed acknowledgement of its first half.
        """
        connection: Any = event.assoc.dul.socket and event.assoc.dul.socket.socket
        connection.settimeout(self.peer.timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

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

    def _status(self, send: Callable[[], Any], what: str) -> int:
        """The status that answers a message. Raises PeerBroke where there is none."""
        try:
            answer = send()
        except RuntimeError:  # the association has ended
            answer = Dataset()
        return self._checked(answer, what)

    def _checked(self, answer: Dataset, what: str) -> int:
        if "Status" not in answer:
            raise PeerBroke(
                f"{self.peer} broke off or fell silent during {what}: look into its log, and whether it lets "
                f"{self.peer.calling_ae_title} do that"
            )
        return int(answer.Status)

    def _takes(self, sop_class: UID, *syntaxes: str | UID) -> bool:
        return any(c.abstract_syntax == sop_class and c.transfer_syntax[0] in syntaxes for c in self._accepted())

    def _accepted(self) -> list[PresentationContext]:
        return list(self._association.accepted_contexts)

    def _fitted(self, dataset: Dataset) -> bool:
        """Whether the peer takes `dataset`, which is decompressed where it must; pynetdicom changes VR encodings."""
        if self._takes(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID):
            return True
        if not self._takes(dataset.SOPClassUID, *_PLAIN):
            return False
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            files.decompress(dataset)
        return True

    def _find(self, study_uid: str, series_uid: str) -> Iterator[str]:
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID, query.SeriesInstanceUID, query.SOPInstanceUID = study_uid, series_uid, ""
        self._association.dimse_timeout = self.peer.timeout_s
        status, deadline = delivery.SUCCESS, time.monotonic() + self.peer.timeout_s
        try:
            for count, (answer, match) in enumerate(self._association.send_c_find(query, _FIND)):
                status = self._checked(answer, "C-FIND")
                if count > MOST_MATCHES or time.monotonic() > deadline:
                    raise PeerBroke(f"{self.peer} answers C-FIND for one series without an end")
                if status in delivery.PENDING and match is not None:
                    yield str(match.get("SOPInstanceUID", ""))
        except RuntimeError:
            raise PeerBroke(f"{self.peer} broke off before C-FIND") from None
        if status != delivery.SUCCESS:
            raise PeerDeclined(f"{self.peer} answers C-FIND with status 0x{status:04X}: look into its log")


class _Entity(AE):
    """pynetdicom's, but no connection that hangs keeps the process alive."""

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> AssociationSocket:
        assoc.dul.daemon = True
        assoc.dimse = _BoundedMessages(assoc)
        assoc.dul.state_machine = LastingStateMachine(assoc.dul)
        transport = _Transport(assoc, address=address)
        transport.tls_args = tls_args
        return transport


class _BoundedMessages(DIMSEServiceProvider):
    """pynetdicom's, but an answer without an end is not collected: the peer counts as gone."""

    def receive_primitive(self, primitive: P_DATA) -> None:
        super().receive_primitive(primitive)
        message = self.message
        parts = (message.encoded_command_set, message.data_set) if message else ()
        collected = sum(part.tell() for part in parts if part)
        if collected > MAX_REPLY or self.msg_queue.qsize() > MOST_MATCHES:
            self.message = None
            self.dul.event_queue.put("Evt19")
            self.msg_queue.put((None, None))  # nothing that anybody waits for comes any more


class _Transport(AssociationSocket):
    """pynetdicom's, but a PDU has a length and a time, it acknowledges at once, and closes what failed."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Raises what pynetdicom takes for a connection that is gone, where a PDU is too long or drips.

        Many peers send an answer in two pieces, and the second once the first is acknowledged. That costs 40 ms an
        answer where Linux waits with it; it must be told again after each piece.
        """
        if nr_bytes > MAX_PDU:
            raise ConnectionAbortedError(f"a PDU of {nr_bytes} bytes")
        assert self.socket
        received, deadline = bytearray(), time.monotonic() + (self.assoc.connection_timeout or 30)
        while len(received) < nr_bytes and (more := self.socket.recv(nr_bytes - len(received))):
            received += more
            if hasattr(socket, "TCP_QUICKACK"):
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            if time.monotonic() > deadline:
                raise ConnectionAbortedError("a PDU that comes too slowly")
        return received

    def send(self, bytestream: bytes) -> None:
        """All of it within one timeout, which `sendall` of a plain socket keeps; then the connection counts as gone."""
        deadline = time.monotonic() + (self.assoc.connection_timeout or 30)
        try:
            for start in range(0, len(bytestream), _PIECE):
                if not self.socket or time.monotonic() > deadline:
                    raise TimeoutError
                self.socket.sendall(bytestream[start : start + _PIECE])
        except OSError:
            self.event_queue.put("Evt17")

    def _shutdown_socket(self) -> None:
        connection = self.socket
        super()._shutdown_socket()
        if connection:
            connection.close()


def _kind(item: Item) -> tuple[str, str] | None:
    """(SOP class, transfer syntax) of a file, None where it cannot be read: then `store` says so."""
    try:
        header = files.header(item)
    except DicomError:
        return None
    return str(header.SOPClassUID), str(header.file_meta.TransferSyntaxUID)

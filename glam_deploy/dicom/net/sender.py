"""DIMSE client (SCU): C-ECHO, C-STORE, C-FIND to verify delivery, and requests for storage commitment."""

import queue
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from glam_deploy.dicom.net.peer import Peer, silence_pynetdicom, tls_context, why_unreachable
from glam_deploy.errors import DicomError, PeerBroke, PeerDeclined, PeerError

MOST_MATCHES = 10_000
"""Largest number of instances in a series of results; about ten are common."""

MAX_REPLY = 1 << 17
"""Largest response in bytes, command set and data set together."""
_PIECE = 1 << 14

Kind = tuple[str, str]
"""SOP class and transfer syntax of an object, UIDs."""

_PLAIN: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
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


class DimseSession:
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
        self.peer = peer
        wanted = {pair: build_context(*pair) for pair in (*kinds, *map(_kind, items)) if pair}
        plain = {sop_class: build_context(sop_class, _PLAIN) for sop_class, _ in wanted}
        services = [Verification, *([_FIND] if query else []), *([StorageCommitmentPushModel] if commitment else [])]
        self._contexts: list[PresentationContext] = [
            *(build_context(service, _PLAIN) for service in services), *wanted.values(), *plain.values()]  # fmt: skip
        self._reports: queue.SimpleQueue[Commitment] = queue.SimpleQueue()

    def __enter__(self) -> "DimseSession":
        silence_pynetdicom()
        self._association = self._associate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_usable = error is None or isinstance(error, PeerDeclined)
        (self._association.release if is_usable else self._association.abort)()

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

    def not_accepted(self) -> frozenset[str]:
        """UIDs of the proposed SOP classes that the peer accepts in no transfer syntax."""
        proposed, accepted = (
            frozenset(str(context.abstract_syntax) for context in contexts)
            for contexts in (self._contexts, self._accepted())
        )
        return proposed - accepted

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        """SOP Instance UIDs of `items` that C-FIND at IMAGE level finds (PS3.4 C.6.2), with one query per series.

        Raises PeerDeclined if the peer does not accept queries, PeerBroke if there is no response.
        """
        if not self._takes(_FIND, *_PLAIN):
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
        entity.network_timeout = None  # each step has a separate time limit
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
        """Set socket options: a timeout and TCP_NODELAY.

        Without a timeout, a peer that stops reading would block the thread of pynetdicom, and `abort`, without limit.
        Without TCP_NODELAY, each message waits 40 ms for the delayed acknowledgement of its first half.
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
        """Status of the response to a message. Raises PeerBroke if there is none."""
        try:
            answer = send()
        except RuntimeError:  # the association has ended
            answer = Dataset()
        return self._checked(answer, what)

    def _checked(self, answer: Dataset, what: str) -> int:
        if "Status" not in answer:
            raise PeerBroke(
                f"{self.peer} ended the association or did not answer during {what}: check its log, and whether it "
                f"allows this for {self.peer.calling_ae_title}"
            )
        return int(answer.Status)

    def _takes(self, sop_class: UID, *syntaxes: str | UID) -> bool:
        return any(c.abstract_syntax == sop_class and c.transfer_syntax[0] in syntaxes for c in self._accepted())

    def _accepted(self) -> list[PresentationContext]:
        return list(self._association.accepted_contexts)

    def _fitted(self, dataset: Dataset) -> bool:
        """Whether the peer accepts `dataset`, which is decompressed if necessary; pynetdicom converts VR encodings."""
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
                    raise PeerBroke(
                        f"{self.peer} answers C-FIND for one series with more than {MOST_MATCHES} matches, or for "
                        f"longer than {self.peer.timeout_s:g} s"
                    )
                if status in delivery.PENDING and match is not None:
                    yield str(match.get("SOPInstanceUID", ""))
        except RuntimeError:
            raise PeerBroke(f"{self.peer} ended the association before C-FIND") from None
        if status != delivery.SUCCESS:
            raise PeerDeclined(f"{self.peer} answers C-FIND with status 0x{status:04X}: check the log of the peer")


class _Entity(AE):
    """Application entity whose connections do not keep the process alive, and have limits of time and size."""

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
    """DIMSE provider with a limit of the size of a response; beyond it, the association is aborted."""

    def receive_primitive(self, primitive: P_DATA) -> None:
        super().receive_primitive(primitive)
        message = self.message
        parts = (message.encoded_command_set, message.data_set) if message else ()
        collected = sum(part.tell() for part in parts if part)
        if collected > MAX_REPLY or self.msg_queue.qsize() > MOST_MATCHES:
            self.message = None
            self.dul.event_queue.put("Evt19")
            self.msg_queue.put((None, None))  # ends the wait for a response


class _Transport(AssociationSocket):
    """Socket with limits of length and time of a PDU, immediate acknowledgements, and closing after a failure."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Receive bytes; raises ConnectionAbortedError for a PDU that is too long or too slow.

        pynetdicom treats this error as a closed connection. Many peers send a response in two pieces, the second after
        the acknowledgement of the first, which Linux delays by 40 ms. TCP_QUICKACK prevents the delay; it must be set
        again after each piece.
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
                raise ConnectionAbortedError("a PDU that is too slow")
        return received

    def send(self, bytestream: bytes) -> None:
        """Send all bytes within one timeout; after it, the connection counts as closed."""
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


def _kind(item: Item) -> Kind | None:
    """The kind of a file, None if it cannot be read, which `store` reports."""
    try:
        header = files.header(item)
    except DicomError:
        return None
    return str(header.SOPClassUID), str(header.file_meta.TransferSyntaxUID)

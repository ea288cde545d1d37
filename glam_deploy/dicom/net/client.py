"""Client side of pynetdicom with limits of memory and time for the answers of a peer.

By default, pynetdicom reads a PDU of any length into memory, waits without limit for the rest of it, and collects a
response of any size.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA, SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket

from glam_deploy.dicom.mammography import IMPLEMENTATION_UID
from glam_deploy.dicom.net import delivery
from glam_deploy.dicom.net.archive import MOST_MATCHES, too_much
from glam_deploy.dicom.net.associations import LastingStateMachine
from glam_deploy.dicom.net.bounded_socket import MAX_PDU
from glam_deploy.dicom.net.peer import Peer, silence_pynetdicom, tls_context, why_unreachable
from glam_deploy.errors import PeerBroke, PeerDeclined, PeerError

MAX_REPLY = 1 << 17
"""Largest response in bytes, command set and data set together."""
_PIECE = 1 << 14

PLAIN: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


class ClientMessages(DIMSEServiceProvider):
    """DIMSE provider of a client: responses are for the caller that waits for them."""

    def get_msg(self, block: bool = False) -> Any:
        """The next message. Without `block` none: pynetdicom's own thread of the association asks so, and may take a
        response that arrives while it is about to pause, for which the caller would then wait in vain.
        """
        return super().get_msg(block=True) if block else (None, None)

    def break_off(self) -> None:
        """Abort the association."""
        self.message = None
        self.dul.event_queue.put("Evt19")
        self.msg_queue.put((None, None))  # ends the wait for a response


class BoundedMessages(ClientMessages):
    """DIMSE provider with a limit of the size of a response; beyond it, the association is aborted."""

    def receive_primitive(self, primitive: P_DATA) -> None:
        super().receive_primitive(primitive)
        message = self.message
        parts = (message.encoded_command_set, message.data_set) if message else ()
        collected = sum(part.tell() for part in parts if part)
        if collected > MAX_REPLY or self.msg_queue.qsize() > MOST_MATCHES:
            self.break_off()


class ClientAssociation:
    """One association with `peer`, for the contexts that a subclass proposes.

    Verification should be among them, to distinguish a peer that accepts no other context from a peer that rejects the
    association. Entering raises PeerError; exiting releases the association, or aborts it after an error. Not
    thread-safe.
    """

    def __init__(
        self,
        peer: Peer,
        contexts: Sequence[PresentationContext],
        *,
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
        handlers: Sequence[evt.EventHandlerType] = (),
        messages: type[ClientMessages] = BoundedMessages,
    ) -> None:
        self.peer, self._messages = peer, messages
        self._contexts, self._roles, self._handlers = list(contexts), list(roles), list(handlers)

    def __enter__(self) -> Self:
        silence_pynetdicom()
        self._association = self._associate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_usable = error is None or isinstance(error, PeerDeclined)
        (self._association.release if is_usable else self._association.abort)()

    def not_accepted(self) -> frozenset[str]:
        """UIDs of the proposed SOP classes that the peer accepts in no transfer syntax."""
        proposed, accepted = (
            frozenset(str(context.abstract_syntax) for context in contexts)
            for contexts in (self._contexts, self._accepted())
        )
        return proposed - accepted

    def _associate(self) -> Association:
        peer = self.peer
        entity = _Entity(peer.calling_ae_title, self._messages)
        entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = peer.timeout_s
        entity.network_timeout = None  # each step has a separate time limit
        entity.implementation_class_uid, entity.implementation_version_name = IMPLEMENTATION_UID, "GLAM_DEPLOY"
        security = None if peer.tls is None else (tls_context(peer.tls), peer.host)
        handlers = [(evt.EVT_CONN_OPEN, self._on_connection), *self._handlers]
        try:
            association = entity.associate(
                peer.host,
                peer.port,
                self._contexts,
                peer.ae_title,
                ext_neg=list(self._roles),
                tls_args=security,
                evt_handlers=handlers,
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

    def _matches(self, query: Dataset, model: UID, *, seconds: float, what: str) -> Iterator[Dataset]:
        """The matches of a C-FIND. Raises PeerBroke if they do not end within limits, PeerDeclined for a failure."""
        self._association.dimse_timeout = self.peer.timeout_s
        status, deadline = delivery.SUCCESS, time.monotonic() + seconds
        try:
            for count, (answer, match) in enumerate(self._association.send_c_find(query, model)):
                status = self._checked(answer, "C-FIND")
                if count > MOST_MATCHES or time.monotonic() > deadline:
                    raise PeerBroke(too_much(self.peer, what, seconds))
                if status in delivery.PENDING and match is not None:
                    yield match
        except RuntimeError:
            raise PeerBroke(f"{self.peer} ended the association before C-FIND") from None
        if status != delivery.SUCCESS:
            raise PeerDeclined(f"{self.peer} answers C-FIND with status 0x{status:04X}: check the log of the peer")

    def _accepted(self) -> list[PresentationContext]:
        return list(self._association.accepted_contexts)


class _Entity(AE):
    """Application entity whose connections do not keep the process alive, and have limits of time and size."""

    def __init__(self, ae_title: str, messages: type[ClientMessages]) -> None:
        super().__init__(ae_title)
        self._messages = messages

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> AssociationSocket:
        assoc.dul.daemon = True
        assoc.dimse = self._messages(assoc)
        assoc.dul.state_machine = LastingStateMachine(assoc.dul)
        transport = _Transport(assoc, address=address)
        transport.tls_args = tls_args
        return transport


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

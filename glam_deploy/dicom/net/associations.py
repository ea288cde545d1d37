"""pynetdicom's server side, made fit for strangers: bounded in memory and time, and streaming.

As it comes, pynetdicom reads a PDU of any length into memory, waits for ever for the rest of one, lets one slow TLS
handshake hold up everybody, and hands over a data set only when all of it has come. Each class here changes one of
these and nothing else; `listener` has the policy.
"""

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from io import BytesIO
from socketserver import BaseServer
from threading import BoundedSemaphore
from typing import Any, Protocol

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, N_EVENT_REPORT_RQ, DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from glam_deploy.dicom.part10 import Claim

MAX_PDU = 1 << 20
"""Bytes of the longest PDU that is taken, told to every peer (PS3.8 annex D.1)."""

MAX_COMMAND = 1 << 16
"""Bytes of the longest command set; 200 are common."""

MAX_REPORT = 1 << 20
"""Bytes of the longest storage commitment report, which names some thousand objects."""

TOO_SLOW = "no whole PDU came for receive.idle_s"

SPARE = 16
"""Connections that may be about to become associations, beyond those that are."""

_INVALID_PDU_PARAMETER = bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 6])
"""A-ABORT by the service provider (PS3.8 section 9.3.8), reason 6."""


class Receipt(Protocol):
    """What is answered to a C-STORE."""

    @property
    def status(self) -> int: ...

    @property
    def reason(self) -> str: ...


class Upload(Protocol):
    """Takes one data set; a context manager that is left when the association ends, finished or not. Never raises."""

    def __enter__(self) -> "Upload": ...

    def __exit__(self, *_: object) -> None: ...

    def write(self, chunk: bytes) -> None: ...

    def finish(self) -> Receipt: ...


Begin = Callable[["ServedAssociation", Claim], Upload]
Tell = Callable[[str, "ServedAssociation | str", str], None]
"""(event, association or address, reason)."""


class _BoundedSocket(AssociationSocket):
    """Refuses a PDU that is too long, and cuts off who takes too long to send one."""

    def __init__(self, assoc: "ServedAssociation", connection: socket.socket, idle_s: float) -> None:
        super().__init__(assoc, client_socket=connection)
        self._served, self._idle_s = assoc, idle_s

    def recv(self, nr_bytes: int) -> bytearray:
        assert self.socket
        if nr_bytes > MAX_PDU:
            self._break_off(f"a PDU of {nr_bytes} bytes, expected up to {MAX_PDU}")
        buffer = bytearray(nr_bytes)
        view, filled, deadline = memoryview(buffer), 0, time.monotonic() + self._idle_s
        while filled < nr_bytes and (count := self.socket.recv_into(view[filled:])):
            filled += count
            if time.monotonic() > deadline:
                self._break_off(TOO_SLOW)
        return buffer if filled == nr_bytes else buffer[:filled]

    def _shutdown_socket(self) -> None:
        """pynetdicom would not close one whose other side is gone already."""
        connection = self.socket
        super()._shutdown_socket()
        if connection:
            connection.close()

    def _break_off(self, reason: str) -> None:
        """Raises what pynetdicom takes for a connection that is gone."""
        self._served.tell("aborted", reason)
        self.send(_INVALID_PDU_PARAMETER)
        raise ConnectionAbortedError(reason)


class _Passage(BytesIO):
    """Where pynetdicom writes the fragments of a data set: they go on to the upload, and none but a report's stays."""

    def __init__(self, association: "ServedAssociation", message: DIMSEMessage) -> None:
        super().__init__()
        self._association, self._message, self._begun = association, message, False
        self.upload: Upload | None = None

    def write(self, fragment: Any) -> int:
        if isinstance(self._message, N_EVENT_REPORT_RQ):
            return self._keep(fragment)
        if not self._begun:
            self._begun, self.upload = True, self._association.begin_upload(self._message)
        if self.upload:
            self.upload.write(fragment)
        return len(fragment)

    def _keep(self, fragment: Any) -> int:
        if self.tell() + len(fragment) > MAX_REPORT:
            raise ValueError(f"a report of more than {MAX_REPORT} bytes")
        return super().write(fragment)


class _StreamedMessages(DIMSEServiceProvider):
    """Puts a passage where pynetdicom would collect a data set, and bounds the rest of a message."""

    def __init__(self, assoc: "ServedAssociation") -> None:
        super().__init__(assoc)
        self._served = assoc

    def receive_primitive(self, primitive: P_DATA) -> None:
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.data_set = _Passage(self._served, self.message)
        try:
            super().receive_primitive(primitive)
            if self.message and self.message.encoded_command_set.tell() > MAX_COMMAND:
                self._break_off(f"a command set of more than {MAX_COMMAND} bytes")
        except Exception as error:
            self._break_off(f"a message that cannot be understood ({type(error).__name__})")

    def _break_off(self, reason: str) -> None:
        self.message = None
        self._served.tell("aborted", reason)
        # what pynetdicom calls an invalid PDU: it answers with A-ABORT
        self.dul.event_queue.put("Evt19")


class ServedAssociation(Association):
    """One that somebody else has asked for."""

    def __init__(self, ae: ApplicationEntity, server: "Server", connection: socket.socket) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self._server = self.server = server
        self.dimse = _StreamedMessages(self)
        self.set_socket(_BoundedSocket(self, connection, server.idle_s))
        # or a peer that holds still would keep the process from ending
        self.dul.daemon = True
        self._uploads = ExitStack()
        self._busy = False
        self._told_end = False

    @property
    def peer(self) -> str:
        """AE title@address, as the audit calls it; the address alone while no AE title is known."""
        return f"{self.requestor.ae_title}@{self.host}" if self.requestor.ae_title else self.host

    @property
    def host(self) -> str:
        address = self.requestor.address_info
        return address.address if address else ""

    def tell(self, event: str, reason: str = "") -> None:
        """Of an end, once: why we break off is known before pynetdicom says that it is over."""
        if event != "aborted" or not self._told_end:
            self._told_end = event == "aborted"
            self.server.tell(event, self, reason)

    def begin_upload(self, message: DIMSEMessage) -> Upload | None:
        """None for what is no C-STORE of an accepted context, and for one that did not wait for the last one's answer.

        pynetdicom answers the first, `finish_upload` the second.
        """
        contexts = {context.context_id: context for context in self.accepted_contexts}
        context = contexts.get(message.context_id)
        if not isinstance(message, C_STORE_RQ) or context is None or self._busy:
            return None
        self._busy = True
        command = message.command_set
        return self._uploads.enter_context(
            self.server.begin(
                self,
                Claim(
                    sop_class=str(command.get("AffectedSOPClassUID", "")),
                    sop_uid=str(command.get("AffectedSOPInstanceUID", "")),
                    transfer_syntax=str(context.transfer_syntax[0]),
                ),
            )
        )

    def finish_upload(self, data_set: object) -> Receipt | None:
        """Of the data set of a C-STORE; None where nothing was taken."""
        if not isinstance(data_set, _Passage) or data_set.upload is None:
            return None
        receipt = data_set.upload.finish()
        self._uploads.close()
        self._busy = False
        return receipt

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        finally:
            self._uploads.close()
            self.server.leave(self)

    def _bind_defaults(self) -> None:
        _bind_without_log(self)


class _Handler(RequestHandler):
    def _create_association(self) -> ServedAssociation:
        """As pynetdicom does, but for our classes, and without its copy of all contexts, which takes 70 ms."""
        assert isinstance(self.server, Server)
        association = ServedAssociation(self.ae, self.server, self.request)
        association.name = "AcceptorThread"
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        acceptor.supported_contexts = self.server.contexts
        association.requestor.address_info = self.remote
        for event, handler in self.server.handlers:
            association.bind(event, handler)
        return association


class Server(ThreadedAssociationServer):
    """Listens at one address. Every connection has its own thread from the first byte, TLS handshake included."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        contexts: list[PresentationContext],
        *,
        idle_s: float,
        tls: ssl.SSLContext | None,
        begin: Begin,
        tell: Tell,
        leave: Callable[[ServedAssociation], None],
        handlers: list[tuple[Any, Callable[[evt.Event], Any]]],
        knows: Callable[[str], bool],
        connections: BoundedSemaphore,
    ) -> None:
        """Raises OSError where the address cannot be had.

        `knows`: whether anybody may come from an address; others are not even read. `connections`: one permit each.
        """
        self.idle_s, self.tls, self.begin, self.tell, self.handlers = idle_s, tls, begin, tell, handlers
        self._leave, self._knows, self._connections = leave, knows, connections
        super().__init__(ae, address, ae.ae_title, contexts, request_handler=_Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        address = str(client_address[0])
        if not self._knows(address):
            self.tell("rejected", address, "no sender of the configuration has this address")
            return False
        if not self._connections.acquire(blocking=False):
            self.tell("rejected", address, "too many connections (receive.max_associations)")
            return False
        return True

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            request.settimeout(self.idle_s)
            if self.tls:
                request = self.tls.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
        except BaseException as error:
            self._connections.release()
            told = getattr(error, "reason", None) or type(error).__name__
            self.tell("rejected", str(client_address[0]), f"no {'TLS ' if self.tls else ''}connection ({told})")
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Told already; socketserver would print a trace."""

    def leave(self, association: ServedAssociation) -> None:
        self._connections.release()
        self._leave(association)

    def shutdown(self) -> None:
        BaseServer.shutdown(self)
        self.server_close()

    def _bind_defaults(self) -> None:
        """`handlers` are bound to each association instead."""


def _bind_without_log(association: ServedAssociation) -> None:
    """pynetdicom's defaults but those that write what comes and goes into its log."""
    for event in evt._INTERVENTION_EVENTS:
        association.bind(event, evt.get_default_handler(event))

"""pynetdicom's server side, made fit for strangers: bounded in memory and time, and streaming.

As it comes, pynetdicom reads a PDU of any length into memory, waits for ever for the rest of one, lets one slow TLS
handshake hold up everybody, keeps two threads for a connection that asks for nothing, queues messages without end, and
hands over a data set only when all of it has come. Each class here changes one of these and nothing else; `listener`
has the policy.
"""

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from socketserver import BaseServer
from typing import Any, Protocol

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, N_EVENT_REPORT_RQ, DIMSEMessage
from pynetdicom.fsm import InvalidEventError, StateMachine
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from glam_deploy.dicom.net.bounded_socket import MAX_PDU, BoundedSocket, WaitingRoom
from glam_deploy.dicom.net.request import INVALID_PDU_PARAMETER, NoRequestError, abort_pdu, read_request
from glam_deploy.dicom.part10 import Claim

MAX_COMMAND = 1 << 16
"""Bytes of the longest command set; 200 are common."""

MAX_REPORT = 1 << 20
"""Bytes of the longest storage commitment report, which names some thousand objects."""

MOST_WAITING = 100
"""Messages of one association that wait to be answered; a peer that waits for its answers has one."""

SLOWEST = 1 << 14
"""Bytes a second: an object is given so much time beyond `idle_s`, then its sender is cut off."""

GOODBYE_S = 1.0
"""How long a peer that is cut off has to close its side."""

TOO_MANY = "too many connections (receive.max_associations)"


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
Audit = Callable[[str, "ServedAssociation | str", str], None]
"""(event, association or address, reason)."""


class _Passage(BytesIO):
    """Where pynetdicom writes the fragments of a data set: they go on to the upload, and none but a report's stays."""

    def __init__(self, association: "ServedAssociation", message: DIMSEMessage) -> None:
        super().__init__()
        self._association, self._message, self._begun = association, message, False
        self._since, self._bytes = time.monotonic(), 0
        self.upload: Upload | None = None

    def write(self, fragment: Any) -> int:
        if isinstance(self._message, N_EVENT_REPORT_RQ):
            return self._keep(fragment)
        if not self._begun:
            self._begun, self.upload = True, self._association.begin_upload(self._message)
        self._check_pace(len(fragment))
        if self.upload:
            self.upload.write(fragment)
        return len(fragment)

    def _check_pace(self, count: int) -> None:
        """Raises _BrokenOffError for a data set that comes too slowly, or without an end."""
        self._bytes += count
        server = self._association.server
        if time.monotonic() - self._since > server.idle_s + self._bytes / SLOWEST:
            raise _BrokenOffError(f"a data set that comes with less than {SLOWEST} bytes a second")
        if self._bytes > server.most_bytes:
            raise _BrokenOffError(f"a data set of more than {server.most_bytes} bytes")

    def _keep(self, fragment: Any) -> int:
        if self.tell() + len(fragment) > MAX_REPORT:
            raise _BrokenOffError(f"a report of more than {MAX_REPORT} bytes")
        return super().write(fragment)


class _BrokenOffError(Exception):
    """A peer is cut off for this reason."""


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
            elif self.msg_queue.qsize() > MOST_WAITING:
                self._break_off(f"more than {MOST_WAITING} messages that do not wait for an answer")
        except _BrokenOffError as error:
            self._break_off(str(error))
        except Exception as error:
            self._break_off(f"a message that cannot be understood ({type(error).__name__})")

    def _break_off(self, reason: str) -> None:
        self.message = None
        self._served.audit("aborted", reason)
        # what pynetdicom calls an invalid PDU: it answers with A-ABORT, and reads on for so long
        self.dul.artim_timer.timeout = GOODBYE_S
        self.dul.event_queue.put("Evt19")


class LastingStateMachine(StateMachine):
    """Ends the connection where an answer of ours meets a peer that is going; pynetdicom's thread would die of it."""

    def do_action(self, event: str) -> None:
        try:
            super().do_action(event)
        except InvalidEventError:
            self.dul.kill_dul()
            if self.dul.socket:
                self.dul.socket.close()


class ServedAssociation(Association):
    """An association that the peer has requested."""

    def __init__(self, ae: ApplicationEntity, server: "Server", connection: socket.socket, request: bytes) -> None:
        """`request`: the A-ASSOCIATE-RQ, which was read from `connection`."""
        super().__init__(ae, MODE_ACCEPTOR)
        self._server = self.server = server
        self.dimse = _StreamedMessages(self)
        self.dul.state_machine = LastingStateMachine(self.dul)
        self.set_socket(
            BoundedSocket(self, connection, request, idle_s=server.idle_s, break_off=partial(self.audit, "aborted"))
        )
        # else a silent peer would keep the process from ending
        self.dul.daemon = True
        self._uploads = ExitStack()
        self._busy = False
        self._end_audited = False
        self._last_store = time.monotonic()

    @property
    def peer(self) -> str:
        """AE title@address, as in the audit log; the address alone while no AE title is known."""
        return f"{self.requestor.ae_title}@{self.host}" if self.requestor.ae_title else self.host

    @property
    def host(self) -> str:
        address = self.requestor.address_info
        return address.address if address else ""

    @property
    def idle_since(self) -> float | None:
        """Monotonic time of its last C-STORE, or of its begin; None while a C-STORE is under way.

        Other messages do not count, else a peer that sends C-ECHOs would never be idle.
        """
        under_way = self._busy or isinstance(self.dimse.message, C_STORE_RQ)
        return None if under_way else self._last_store

    def end(self, reason: str) -> None:
        """Abort it from another thread; its peer has `GOODBYE_S` to close the connection."""
        self.audit("aborted", reason)
        self.dul.artim_timer.timeout = GOODBYE_S
        self.abort(block=False)

    def audit(self, event: str, reason: str = "") -> None:
        """Report an event. An abort is reported once: the own reason is known before pynetdicom reports the end."""
        if event != "aborted" or not self._end_audited:
            self._end_audited |= event == "aborted"
            self.server.audit(event, self, reason)

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
        self._last_store, self._busy = time.monotonic(), False
        return receipt

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception as error:  # after an error in pynetdicom the connection must not stay open
            self.audit("aborted", f"a fault of glam-deploy ({type(error).__name__})")
            self.dul.kill_dul()
            if isinstance(self.dul.socket, BoundedSocket):
                self.dul.socket.close()
        finally:
            self._uploads.close()
            self.server.release(self)

    def _bind_defaults(self) -> None:
        _bind_without_log(self)


class _Handler(RequestHandler):
    def __init__(self, connection: socket.socket, address: Any, server: "Server", request: bytes) -> None:
        self._first = request
        super().__init__(connection, address, server)

    def _create_association(self) -> ServedAssociation:
        """As pynetdicom does, but for our classes, and without its copy of all contexts, which takes 70 ms."""
        assert isinstance(self.server, Server)
        association = ServedAssociation(self.ae, self.server, self.request, self._first)
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
        request_s: float,
        most_bytes: int,
        tls: ssl.SSLContext | None,
        begin: Begin,
        audit: Audit,
        release: Callable[[ServedAssociation], None],
        handlers: list[tuple[Any, Callable[[evt.Event], Any]]],
        allows_host: Callable[[str], bool],
        waiting: WaitingRoom,
    ) -> None:
        """Raises OSError where the address cannot be had.

        `request_s`: time from a connection to its whole request, TLS handshake included. `most_bytes` of a data set.
        `knows`: whether anybody may come from an address; others are not even read.
        """
        self.idle_s, self.tls, self.begin, self.audit, self.handlers = idle_s, tls, begin, audit, handlers
        self.release, self.most_bytes = release, most_bytes
        self._request_s, self._allows_host, self._waiting = request_s, allows_host, waiting
        super().__init__(ae, address, ae.ae_title, contexts, request_handler=_Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        address = str(client_address[0])
        if not self._allows_host(address):
            self.audit("rejected", address, "no configured sender has this address")
            return False
        return True

    def finish_request(self, request: Any, client_address: Any) -> None:
        address, connection = str(client_address[0]), request
        try:
            if self.tls:
                connection = self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            first = self._first_of(connection, address)
            connection.settimeout(self.idle_s)
            _Handler(connection, client_address, self, first)
        except BaseException:
            connection.close()
            raise

    def _first_of(self, connection: socket.socket, address: str) -> bytes:
        """The request for an association; a connection counts as waiting until it is there. Raises NoRequestError."""
        try:
            with self._waiting.holding(connection, address) as loser:
                if loser:
                    self.audit("rejected", loser, TOO_MANY)
                deadline = time.monotonic() + self._request_s
                if isinstance(connection, ssl.SSLSocket):
                    connection.settimeout(self._request_s)
                    connection.do_handshake()
                return read_request(connection, deadline, longest=MAX_PDU)
        except NoRequestError as error:
            self.audit("rejected" if error.abort != INVALID_PDU_PARAMETER else "aborted", address, str(error))
            if error.abort is not None:
                connection.settimeout(GOODBYE_S)
                connection.sendall(abort_pdu(error.abort))
            raise
        except OSError as error:
            told = getattr(error, "reason", None) or type(error).__name__
            self.audit("rejected", address, f"no {'TLS ' if self.tls else ''}connection ({told})")
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Already audited; socketserver would print a traceback."""

    def shutdown(self) -> None:
        BaseServer.shutdown(self)
        self.server_close()

    def _bind_defaults(self) -> None:
        """`handlers` are bound to each association instead."""


def _bind_without_log(association: ServedAssociation) -> None:
    """pynetdicom's defaults but those that write what comes and goes into its log."""
    for event in evt._INTERVENTION_EVENTS:
        association.bind(event, evt.get_default_handler(event))

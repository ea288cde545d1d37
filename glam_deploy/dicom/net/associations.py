"""Server side of pynetdicom with limits of memory and time for unknown peers, and streaming of data sets.

By default, pynetdicom reads a PDU of any length into memory, waits without limit for the rest of a PDU, blocks all
peers during a slow TLS handshake, keeps two threads for a connection without a request, queues messages without limit,
and passes on a data set only when it is complete. Each class here changes one of these properties; `listener` contains
the policy.
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
from pynetdicom.dimse_messages import C_STORE_RQ, N_EVENT_REPORT_RQ, DIMSEMessage
from pynetdicom.fsm import InvalidEventError, StateMachine
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from glam_deploy.addresses import shown_address
from glam_deploy.dicom.net.bounded_socket import (
    MAX_PDU,
    BoundedSocket,
    NoRequestError,
    PendingConnections,
    abort_pdu,
    read_request,
)
from glam_deploy.dicom.net.command_uids import UnusableUids, claim_of
from glam_deploy.dicom.part10 import Claim

MAX_COMMAND = 1 << 16
"""Largest command set in bytes; 200 are common."""

MAX_REPORT = 1 << 20
"""Largest storage commitment report in bytes, enough for several thousand objects."""

MOST_WAITING = 100
"""Most unanswered messages of one association; a peer that waits for responses has one."""

SLOWEST = 1 << 14
"""Lowest rate of a data set in bytes per second, after the first `idle_s`; a slower association is aborted."""

GOODBYE_S = 1.0
"""Time in seconds that a peer has to close the connection after an abort."""

TOO_MANY = "too many connections (receive.max_associations)"


class Receipt(Protocol):
    """Response to a C-STORE."""

    @property
    def status(self) -> int: ...

    @property
    def reason(self) -> str: ...


class Upload(Protocol):
    """Receiver of one data set; a context manager, exited when the association ends, complete or not. Never raises."""

    def __enter__(self) -> "Upload": ...

    def __exit__(self, *_: object) -> None: ...

    def write(self, chunk: bytes) -> None: ...

    def finish(self) -> Receipt: ...


Begin = Callable[["ServedAssociation", Claim], Upload]
Audit = Callable[[str, "ServedAssociation | str", str], None]
"""(event, association or address, reason)."""


class _DataSetSink(BytesIO):
    """Buffer to which pynetdicom writes the fragments of a data set; passes them to the upload, and keeps reports."""

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
        """Raise _BrokenOffError for a data set that is too slow or too long."""
        self._bytes += count
        server = self._association.server
        if time.monotonic() - self._since > server.idle_s + self._bytes / SLOWEST:
            raise _BrokenOffError(f"a data set slower than {SLOWEST} bytes per second")
        if self._bytes > server.most_bytes:
            raise _BrokenOffError(f"a data set of more than {server.most_bytes} bytes")

    def _keep(self, fragment: Any) -> int:
        if self.tell() + len(fragment) > MAX_REPORT:
            raise _BrokenOffError(f"a report of more than {MAX_REPORT} bytes")
        return super().write(fragment)


class _BrokenOffError(Exception):
    """The association must be aborted for this reason."""


class _StreamedMessages(UnusableUids):
    """DIMSE provider that streams data sets to `_DataSetSink`, and limits the size and number of messages."""

    def __init__(self, assoc: "ServedAssociation") -> None:
        super().__init__(assoc)
        self._served = assoc

    def receive_primitive(self, primitive: P_DATA) -> None:
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.data_set = _DataSetSink(self._served, self.message)
        try:
            super().receive_primitive(primitive)
            if self.message and self.message.encoded_command_set.tell() > MAX_COMMAND:
                self._break_off(f"a command set of more than {MAX_COMMAND} bytes")
            elif self.msg_queue.qsize() > MOST_WAITING:
                self._break_off(f"more than {MOST_WAITING} unanswered messages")
        except _BrokenOffError as error:
            self._break_off(str(error))
        except Exception:
            self._break_off("a message that cannot be decoded: its command set is damaged, or of an unknown kind")

    def _break_off(self, reason: str) -> None:
        self.message = None
        self._served.audit("aborted", reason)
        # event for an invalid PDU: pynetdicom answers with A-ABORT and reads until this timer expires
        self.dul.artim_timer.timeout = GOODBYE_S
        self.dul.event_queue.put("Evt19")


class LastingStateMachine(StateMachine):
    """State machine that closes the connection at an invalid event, which would end the thread of pynetdicom.

    Such an event occurs when a response is sent while the peer closes the association.
    """

    def do_action(self, event: str) -> None:
        try:
            super().do_action(event)
        except InvalidEventError:
            self.dul.kill_dul()
            if self.dul.socket:
                self.dul.socket.close()


class ServedAssociation(Association):
    """An association requested by the peer."""

    def __init__(self, ae: ApplicationEntity, server: "Server", connection: socket.socket, request: bytes) -> None:
        """`request`: the A-ASSOCIATE-RQ, already read from `connection`."""
        super().__init__(ae, MODE_ACCEPTOR)
        self._server = self.server = server
        self.dimse = _StreamedMessages(self)
        self.dul.state_machine = LastingStateMachine(self.dul)
        self.set_socket(
            BoundedSocket(self, connection, request, idle_s=server.idle_s, break_off=partial(self.audit, "aborted"))
        )
        # otherwise an inactive peer would prevent the process from ending
        self.dul.daemon = True
        self._uploads = ExitStack()
        self._busy = False
        self._end_audited = False
        self._last_store = time.monotonic()

    @property
    def peer(self) -> str:
        """AE title@address, as in the audit log; the address alone before the AE title is known."""
        return f"{self.requestor.ae_title}@{self.host}" if self.requestor.ae_title else self.host

    @property
    def host(self) -> str:
        address = self.requestor.address_info
        return address.address if address else ""

    @property
    def idle_since(self) -> float | None:
        """Monotonic time in seconds of the last C-STORE, or of the start; None during a C-STORE.

        Other messages do not count, otherwise a peer that sends C-ECHOs would never be idle.
        """
        in_progress = self._busy or isinstance(self.dimse.message, C_STORE_RQ)
        return None if in_progress else self._last_store

    def end(self, reason: str) -> None:
        """Abort the association from another thread; the peer has `GOODBYE_S` to close the connection."""
        self.audit("aborted", reason)
        self.dul.artim_timer.timeout = GOODBYE_S
        self.abort(block=False)

    def audit(self, event: str, reason: str = "") -> None:
        """Report an event; an abort only once, because our reason is reported before pynetdicom reports the end."""
        if event != "aborted" or not self._end_audited:
            self._end_audited |= event == "aborted"
            self.server.audit(event, self, reason)

    def begin_upload(self, message: DIMSEMessage) -> Upload | None:
        """Start the upload of a C-STORE.

        None for another message or a context that was not accepted, which pynetdicom answers, and for a C-STORE sent
        before the response to the last one, which `finish_upload` handles.
        """
        contexts = {context.context_id: context for context in self.accepted_contexts}
        context = contexts.get(message.context_id)
        if not isinstance(message, C_STORE_RQ) or context is None or self._busy:
            return None
        self._busy = True
        claim = claim_of(message.command_set, context)
        return self._uploads.enter_context(self.server.begin(self, claim))

    def finish_upload(self, data_set: object) -> Receipt | None:
        """The receipt for the data set of a C-STORE; None if no upload was started."""
        if not isinstance(data_set, _DataSetSink) or data_set.upload is None:
            return None
        receipt = data_set.upload.finish()
        self._uploads.close()
        self._last_store, self._busy = time.monotonic(), False
        return receipt

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception as error:  # after an error in pynetdicom the connection must not stay open
            self.audit("aborted", f"an internal error of glam-deploy ({type(error).__name__})")
            self.dul.kill_dul()
            if isinstance(self.dul.socket, BoundedSocket):
                self.dul.socket.close()
        finally:
            self._uploads.close()
            self.server.release(self)

    def _bind_defaults(self) -> None:
        """Bind the default handlers of pynetdicom, without those that log messages."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))


class _Handler(RequestHandler):
    def __init__(self, connection: socket.socket, address: Any, server: "Server", request: bytes) -> None:
        self._first = request
        super().__init__(connection, address, server)

    def _create_association(self) -> ServedAssociation:
        """Create the association as pynetdicom does, with our classes, but without copying all contexts (70 ms)."""
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
    """Server at one address. Every connection has its own thread from the first byte, including the TLS handshake."""

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
        waiting: PendingConnections,
    ) -> None:
        """Bind the address. Raises OSError if it cannot be used.

        `request_s`: time limit from the connection to the complete request, including the TLS handshake. `most_bytes`:
        size limit of a data set. `allows_host`: whether an address may connect; nothing is read from other addresses.
        """
        self.idle_s, self.tls, self.begin, self.audit, self.handlers = idle_s, tls, begin, audit, handlers
        self.release, self.most_bytes = release, most_bytes
        self._request_s, self._allows_host, self._waiting = request_s, allows_host, waiting
        super().__init__(ae, address, ae.ae_title, contexts, request_handler=_Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        return connection, (shown_address(address[0]), *address[1:])

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
            first = self._read_request(connection, address)
            connection.settimeout(self.idle_s)
            _Handler(connection, client_address, self, first)
        except BaseException:
            connection.close()
            raise

    def _read_request(self, connection: socket.socket, address: str) -> bytes:
        """Read the A-ASSOCIATE-RQ; the connection counts as waiting until it is complete. Raises NoRequestError."""
        try:
            with self._waiting.holding(connection, address) as closed_address:
                if closed_address:
                    self.audit("rejected", closed_address, TOO_MANY)
                deadline = time.monotonic() + self._request_s
                if isinstance(connection, ssl.SSLSocket):
                    connection.settimeout(self._request_s)
                    connection.do_handshake()
                return read_request(connection, deadline, longest=MAX_PDU)
        except NoRequestError as error:
            self.audit(error.event, address, str(error))
            if error.abort is not None:
                connection.settimeout(GOODBYE_S)
                connection.sendall(abort_pdu(error.abort))
            raise
        except OSError as error:
            cause = getattr(error, "reason", None) or type(error).__name__
            self.audit("rejected", address, f"no {'TLS ' if self.tls else ''}connection ({cause})")
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: the error is already audited, and socketserver would print a traceback."""

    def shutdown(self) -> None:
        BaseServer.shutdown(self)
        self.server_close()

    def _bind_defaults(self) -> None:
        """Do nothing: `handlers` are bound to each association instead."""

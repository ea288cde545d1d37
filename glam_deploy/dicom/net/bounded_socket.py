"""Bounds on incoming connections: their number, the length and time of a PDU, and the first PDU (A-ASSOCIATE-RQ)."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.transport import AssociationSocket

MAX_PDU = 1 << 20
"""Largest accepted PDU in bytes, sent to every peer in the negotiation (PS3.8 annex D.1)."""

TOO_SLOW = "no complete PDU was received within receive.idle_s"


MAX_REQUEST = 1 << 18
"""Largest A-ASSOCIATE-RQ in bytes; 128 presentation contexts with 60 transfer syntaxes take 250,000."""
MAX_ITEMS = 8192
"""Largest number of items and sub-items in a request."""
_REQUEST, _HEAD, _FIXED = 0x01, 6, 68
_CONTEXT, _USER_INFORMATION = 0x20, 0x50
_MOST_CONTEXTS = 128
"""Presentation context IDs are the odd numbers up to 255 (PS3.8 section 9.3.2.2)."""
_ABORT = 0x07
_UNRECOGNIZED, _UNEXPECTED = 1, 2
INVALID_PDU_PARAMETER = 6
"""Reason/Diag. of an A-ABORT (PS3.8 section 9.3.8)."""


class BoundedSocket(AssociationSocket):
    """Socket of an association that aborts the connection for a PDU that is too long or too slow."""

    def __init__(
        self,
        association: Association,
        connection: socket.socket,
        first: bytes,
        *,
        idle_s: float,
        break_off: Callable[[str], None],
    ) -> None:
        """`first`: bytes already read from `connection`. `break_off`: called with the reason before an abort."""
        super().__init__(association, client_socket=connection)
        self._first, self._idle_s, self._report_abort = first, idle_s, break_off

    @property
    def ready(self) -> bool:
        return bool(self._first) or bool(super().ready)

    def recv(self, nr_bytes: int) -> bytearray:
        assert self.socket
        if self._first:
            given, self._first = self._first[:nr_bytes], self._first[nr_bytes:]
            return bytearray(given)
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
        """Close the connection, also if the peer has already closed it, which pynetdicom would not do."""
        connection = self.socket
        super()._shutdown_socket()
        if connection:
            connection.close()

    def _break_off(self, reason: str) -> None:
        """Abort the association. Raises ConnectionAbortedError, which pynetdicom treats as a closed connection."""
        self._report_abort(reason)
        self.send(abort_pdu(INVALID_PDU_PARAMETER))
        raise ConnectionAbortedError(reason)


class PendingConnections:
    """Connections that have not sent a request; if there are too many, the oldest is closed for the newest.

    A peer that sends its request at once is never the oldest for long. Therefore connections without a request (health
    checks, port scans, hanging peers) do not exclude other peers, not even at the same address. Thread-safe.
    """

    def __init__(self, *, most: int, most_of_one: int) -> None:
        """`most`: limit of all connections; `most_of_one`: limit of the connections of one address."""
        self._most, self._most_of_one = most, most_of_one
        self._waiting: dict[socket.socket, str] = {}
        self._lock = threading.Lock()

    def enter(self, connection: socket.socket, address: str) -> str | None:
        """Add `connection`; returns the address whose oldest connection was closed for it, None if none was."""
        with self._lock:
            self._waiting = {each: other for each, other in self._waiting.items() if each.fileno() >= 0}
            closed_address = self._address_to_close(address)
            if closed_address is not None:
                oldest = next(each for each, other in self._waiting.items() if other == closed_address)
                del self._waiting[oldest]
                _hang_up(oldest)
            self._waiting[connection] = address
        return closed_address

    def leave(self, connection: socket.socket) -> None:
        """Remove a connection that has sent its request or is closed; does nothing if it was removed already."""
        with self._lock:
            self._waiting.pop(connection, None)

    @contextmanager
    def holding(self, connection: socket.socket, address: str) -> Iterator[str | None]:
        """Context manager around `enter` and `leave`; its value is that of `enter`."""
        try:
            yield self.enter(connection, address)
        finally:
            self.leave(connection)

    def _address_to_close(self, address: str) -> str | None:
        """Address whose oldest connection must be closed before one of `address` is added, None if none must."""
        counts = Counter(self._waiting.values())
        if counts[address] >= self._most_of_one:
            return address
        return counts.most_common(1)[0][0] if len(self._waiting) >= self._most else None


def _hang_up(connection: socket.socket) -> None:
    """Shut down a connection that another thread reads from; that thread detects the end and closes it."""
    with suppress(OSError):
        # method of the plain socket, because that of SSLSocket changes the state that the other thread uses
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class NoRequestError(Exception):
    """No valid A-ASSOCIATE-RQ was received."""

    def __init__(self, reason: str, abort: int | None = None, *, is_abort: bool = False) -> None:
        """`abort`: Reason/Diag. of the A-ABORT to send (PS3.8 section 9.3.8), None to send nothing.

        `is_abort`: the peer has sent an A-ABORT.
        """
        super().__init__(reason)
        self.abort = abort
        self.event = "aborted" if is_abort else "rejected"


FAREWELL = bytes([_ABORT, 0, 0, 0, 0, 4, 0, 0, 0, 0])
"""A-ABORT by the service user (PS3.8 section 9.3.8): a check of the port ends with it, so that it is no rejection."""


def abort_pdu(reason: int) -> bytes:
    """A-ABORT by the service provider (PS3.8 section 9.3.8)."""
    return bytes([_ABORT, 0, 0, 0, 0, 4, 0, 0, 2, reason])


def read_request(connection: socket.socket, deadline: float, *, longest: int) -> bytes:
    """Read the complete PDU before `deadline` (monotonic clock). Raises NoRequestError.

    `longest`: largest accepted PDU of any type, in bytes.
    """
    head = _receive(connection, _HEAD, deadline)
    kind, length = head[0], int.from_bytes(head[2:], "big")
    if kind == _ABORT:  # Sta2, AA-2: close the connection (PS3.8 section 9.2)
        raise NoRequestError("the peer aborted before it requested an association", is_abort=True)
    if kind != _REQUEST:
        raise NoRequestError(*_other_protocol(kind))
    if length > min(longest, MAX_REQUEST):
        raise NoRequestError(
            f"a PDU of {length} bytes, expected up to {longest}"
            if length > longest
            else f"an association request of {length} bytes, expected up to {MAX_REQUEST}",
            INVALID_PDU_PARAMETER,
        )
    pdu = head + _receive(connection, length, deadline)
    _check(pdu)
    return pdu


def _other_protocol(kind: int) -> tuple[str, int]:
    """Reason and A-ABORT reason for a connection whose first byte is not that of an A-ASSOCIATE-RQ."""
    if kind == 0x16:
        return "the peer uses TLS, but this is the DICOM port without TLS", _UNRECOGNIZED
    if 0x02 <= kind < _ABORT:
        return "the first PDU is not an association request", _UNEXPECTED
    return f"the peer does not use DICOM: its first byte is 0x{kind:02X}, expected 0x01", _UNRECOGNIZED


def _receive(connection: socket.socket, count: int, deadline: float) -> bytes:
    buffer = bytearray(count)
    view, filled = memoryview(buffer), 0
    while filled < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise NoRequestError("no complete association request was received in time", _UNEXPECTED)
        connection.settimeout(left)
        try:
            received = connection.recv_into(view[filled:])
        except TimeoutError:
            continue
        except OSError as error:
            raise NoRequestError(f"the connection was lost ({type(error).__name__})") from None
        if not received:
            raise NoRequestError("the peer closed the connection without an association request")
        filled += received
    return bytes(buffer)


def _check(pdu: bytes) -> None:
    """Raise NoRequestError for a request that pynetdicom cannot decode, or only with excessive memory or time."""
    try:
        kinds = _items(pdu, _HEAD + _FIXED)
    except ValueError as error:
        raise NoRequestError(f"an association request with {error}", INVALID_PDU_PARAMETER) from None
    if kinds.count(_CONTEXT) > _MOST_CONTEXTS or len(kinds) > MAX_ITEMS:
        raise NoRequestError(
            f"an association request with {len(kinds)} items and {kinds.count(_CONTEXT)} presentation contexts, "
            f"expected up to {MAX_ITEMS} and {_MOST_CONTEXTS}",
            INVALID_PDU_PARAMETER,
        )
    try:
        request = A_ASSOCIATE_RQ()
        request.decode(pdu)
        for context in request.to_primitive().presentation_context_definition_list:
            assert context.abstract_syntax and context.transfer_syntax
    except Exception:  # of any type; its message is not used, because it quotes the request
        reason = "an association request that cannot be decoded: an AE title, a UID or another item is not valid"
        raise NoRequestError(reason, INVALID_PDU_PARAMETER) from None


def _items(pdu: bytes, start: int) -> list[int]:
    """Types of all items and sub-items (PS3.8 section 9.3.2), read without creating objects.

    Raises ValueError if their lengths are wrong.
    """
    kinds: list[int] = []
    spans = [(start, len(pdu))]
    while spans:
        at, end = spans.pop()
        while at < end:
            if at + 4 > end or (after := at + 4 + int.from_bytes(pdu[at + 2 : at + 4], "big")) > end:
                raise ValueError("wrong item lengths")
            kinds.append(pdu[at])
            if pdu[at] in (_CONTEXT, _USER_INFORMATION):
                spans.append((min(after, at + (8 if pdu[at] == _CONTEXT else 4)), after))
            at = after
    return kinds

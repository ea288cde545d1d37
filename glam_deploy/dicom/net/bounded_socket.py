"""Limits of incoming connections: length and time of a PDU, and number of connections without a request."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

from glam_deploy.dicom.net.request import INVALID_PDU_PARAMETER, abort_pdu

MAX_PDU = 1 << 20
"""Largest accepted PDU in bytes, sent to every peer in the negotiation (PS3.8 annex D.1)."""

TOO_SLOW = "no complete PDU was received within receive.idle_s"


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

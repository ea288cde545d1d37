"""Bounds on incoming connections: length and time of a PDU, and the number of those that have asked for nothing."""

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
"""Bytes of the longest PDU that is taken, told to every peer (PS3.8 annex D.1)."""

TOO_SLOW = "no whole PDU came for receive.idle_s"


class BoundedSocket(AssociationSocket):
    """Refuses a PDU that is too long, and cuts off who takes too long to send one."""

    def __init__(
        self,
        association: Association,
        connection: socket.socket,
        first: bytes,
        *,
        idle_s: float,
        break_off: Callable[[str], None],
    ) -> None:
        """`first`: bytes already read from `connection`. `break_off`: called with the reason before a cut-off."""
        super().__init__(association, client_socket=connection)
        self._first, self._idle_s, self._told = first, idle_s, break_off

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
        """pynetdicom would not close one whose other side is gone already."""
        connection = self.socket
        super()._shutdown_socket()
        if connection:
            connection.close()

    def _break_off(self, reason: str) -> None:
        """Raises what pynetdicom takes for a connection that is gone."""
        self._told(reason)
        self.send(abort_pdu(INVALID_PDU_PARAMETER))
        raise ConnectionAbortedError(reason)


class WaitingRoom:
    """Where there are too many, the oldest gives way to the newest.

    Who asks at once is never the oldest for long, so that connections that say nothing (health checks, port scans,
    peers that hang) lock out nobody, not even others of their own address. Safe to share between threads.
    """

    def __init__(self, *, most: int, most_of_one: int) -> None:
        """`most`: connections in all; `most_of_one`: of one address."""
        self._most, self._most_of_one = most, most_of_one
        self._waiting: dict[socket.socket, str] = {}
        self._lock = threading.Lock()

    def enter(self, connection: socket.socket, address: str) -> str | None:
        """Count `connection` until it leaves; the address whose oldest one was hung up for it, if any was."""
        with self._lock:
            self._waiting = {each: other for each, other in self._waiting.items() if each.fileno() >= 0}
            loser = self._loser(address)
            if loser is not None:
                oldest = next(each for each, other in self._waiting.items() if other == loser)
                del self._waiting[oldest]
                _hang_up(oldest)
            self._waiting[connection] = address
        return loser

    def leave(self, connection: socket.socket) -> None:
        """It has asked, or it is closed; nothing where it was hung up."""
        with self._lock:
            self._waiting.pop(connection, None)

    @contextmanager
    def holding(self, connection: socket.socket, address: str) -> Iterator[str | None]:
        """`enter` and `leave`."""
        try:
            yield self.enter(connection, address)
        finally:
            self.leave(connection)

    def _loser(self, address: str) -> str | None:
        counts = Counter(self._waiting.values())
        if counts[address] >= self._most_of_one:
            return address
        return counts.most_common(1)[0][0] if len(self._waiting) >= self._most else None


def _hang_up(connection: socket.socket) -> None:
    """End a connection that another thread reads from: that thread sees its end, and closes it."""
    with suppress(OSError):
        # as of a plain socket, for an SSLSocket changes its state, which the other thread uses
        socket.socket.shutdown(connection, socket.SHUT_RDWR)

"""Connections that have not asked for anything yet, counted by address; for DICOM and for HTTP."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress


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

"""HTTP connections that end: limits of time and number around uvicorn's protocol, which has none for a request."""

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from glam_deploy.dicom.net.waiting import WaitingRoom

HEAD_S = 10.0
"""From a connection, or the last answer, to the whole head of a request."""
BODY_S, SLOWEST = 30.0, 1 << 14
"""For the body of a request, and the bytes of it in a second beyond that."""
ANSWER_S = 120.0
"""From the end of a request to the end of its answer, whatever the client reads."""
LOOK_S = 1.0

MOST_REQUESTS = 100
"""Requests at once; a further one is answered with 503."""
MOST_WAITING = 100
"""Connections without a request; beyond it the oldest of an address gives way."""
KERNEL_BACKLOG = 2048
"""Connections that wait to be accepted."""
AT_A_TIME = 16
"""Connections that are accepted before those that came earlier are read: a request that has come counts as one before
`MOST_WAITING` others have been accepted after it."""


class CountedListener(socket.socket):
    """A listening socket whose connections wait in a room from the first byte on, TLS handshake included."""

    def __init__(self, listener: socket.socket) -> None:
        """Takes the place of `listener`."""
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self.room = WaitingRoom(most=MOST_WAITING, most_of_one=MOST_WAITING)

    def listen(self, backlog: int = AT_A_TIME, /) -> None:
        """asyncio gives how many it accepts at a time."""
        super().listen(max(backlog, KERNEL_BACKLOG))

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        self.room.enter(connection, str(address[0]))
        return connection, address


class BoundedProtocol(H11Protocol):
    """Ends a connection that takes too long, and counts it as waiting while it has no request."""

    def __init__(self, room: WaitingRoom, **options: Any) -> None:
        super().__init__(**options)
        self._room = room
        self._connection: socket.socket | None = None
        self._phase: object = None
        self._since, self._bytes = 0.0, 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connection = getattr(transport.get_extra_info("socket"), "_sock", None)
        self._since = self.loop.time()
        self._timer = self.loop.call_later(LOOK_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        if self._connection:
            self._room.leave(self._connection)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        super().data_received(data)

    def handle_events(self) -> None:
        """Counts requests; uvicorn would count connections as well, those that wait and those that were hung up."""
        self.limit_concurrency = 0 if len(self.tasks) >= MOST_REQUESTS else None
        super().handle_events()
        if self._connection and self.cycle and not self.cycle.response_complete:
            self._room.leave(self._connection)

    def on_response_complete(self) -> None:
        if self._connection and self.client and not self.transport.is_closing():
            self._room.enter(self._connection, self.client[0])
        super().on_response_complete()  # goes on with the next request where that has come already

    def _look(self) -> None:
        now, phase = self.loop.time(), self._phase_now()
        if phase != self._phase:
            self._phase, self._since, self._bytes = phase, now, 0
        elif now - self._since > self._longest():
            self.transport.abort()
            return
        if self.flow and self.flow.read_paused:  # we take no more for now, which is not the client's fault
            self._since += LOOK_S
        self._timer = self.loop.call_later(LOOK_S, self._look)

    def _phase_now(self) -> tuple[object, bool]:
        """The request that is under way, None without one, and whether all of it has come."""
        if self.cycle is None or self.cycle.response_complete:
            return None, False
        return self.cycle, not self.cycle.more_body

    def _longest(self) -> float:
        match self._phase:
            case (None, _):
                return HEAD_S
            case (_, False):
                return BODY_S + self._bytes / SLOWEST
            case _:
                return ANSWER_S

"""The connection of an association: bounded in the length of a PDU, and in the time that one may take."""

import socket
import time
from collections.abc import Callable

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

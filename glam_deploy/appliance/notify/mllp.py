"""Client of the Minimal Lower Layer Protocol (HL7 v2.5.1, appendix C.4): one message, one acknowledgment."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from glam_deploy.appliance.notify.client import tls_cause
from glam_deploy.errors import PeerBroke, PeerError

START, END, LAST = b"\x0b", b"\x1c", b"\r"
"""The framing of a message. An acknowledgment ends with END, which its text cannot contain: some listeners omit LAST,
and some send white space before START.
"""
MAX_ANSWER = 1 << 16
"""Largest acknowledgment in bytes; usual ones have 200."""


@dataclass(frozen=True, kw_only=True)
class MllpPeer:
    """A listener."""

    host: str
    port: int
    timeout_s: float
    """Time limit to connect, and from the first byte of a message to the last byte of its acknowledgment."""
    context: ssl.SSLContext | None = None
    """None: without TLS."""

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


def exchange(peer: MllpPeer, message: bytes) -> bytes:
    """Send a message on a connection of its own; the acknowledgment, without framing.

    Raises PeerError if there is no connection, PeerBroke if it ends before the acknowledgment is complete.
    """
    with connected(peer) as connection:
        deadline = time.monotonic() + peer.timeout_s
        try:
            connection.sendall(START + message + END + LAST)
            return _answer(peer, connection, deadline)
        except OSError as error:
            raise PeerBroke(f"{peer} gives no acknowledgment ({tls_cause(error)})") from None


@contextmanager
def connected(peer: MllpPeer) -> Iterator[socket.socket]:
    """A connection, with the TLS handshake done. Raises PeerError."""
    try:
        connection = socket.create_connection((peer.host, peer.port), peer.timeout_s)
    except OSError as error:
        raise PeerError(f"no connection to {peer} ({tls_cause(error)})") from None
    with connection:
        if peer.context is None:
            yield connection
            return
        try:
            secure = peer.context.wrap_socket(connection, server_hostname=peer.host)
        except OSError as error:
            raise PeerError(f"no TLS connection to {peer} ({tls_cause(error)})") from None
        with secure:
            yield secure


def _answer(peer: MllpPeer, connection: socket.socket, deadline: float) -> bytes:
    """The acknowledgment without framing. Raises PeerBroke, and OSError of the connection."""
    received, end = b"", -1
    while end < 0:
        if (left := deadline - time.monotonic()) <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(4096)
        if not part:
            raise PeerBroke(f"{peer} closed the connection without an acknowledgment")
        received = (received + part).lstrip(b" \t\r\n")
        if received[:1] not in (b"", START):
            raise PeerBroke(f"{peer} answers without the framing of MLLP: check that it is an HL7 port")
        if len(received) > MAX_ANSWER:
            raise PeerBroke(f"{peer} answers with more than {MAX_ANSWER} bytes, expected an acknowledgment")
        end = received.find(END)
    return received[len(START) : end]

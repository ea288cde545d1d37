"""DICOMweb services that answer without an end, too slowly, or with more than was asked for."""

import gzip
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.outbox import write_items

from glam_deploy.dicom.net.bounded_http import MAX_ANSWER
from glam_deploy.dicom.net.delivery import Item
from glam_deploy.dicom.net.dicomweb import WebPeer
from glam_deploy.dicom.net.stow import StowSession
from glam_deploy.errors import PeerBroke, PeerDeclined, PeerError

Answer = Callable[[socket.socket], None]
START = b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n"


@contextmanager
def service(answer: Answer, *, reads: bool = True) -> Iterator[WebPeer]:
    """Reads the head of each request, then does what `answer` does, to the end of the connection."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += peer.recv(1 if not reads else 1 << 16)
            answer(peer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield WebPeer(url=f"http://127.0.0.1:{server.getsockname()[1]}/dicom-web", timeout_s=0.5)
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def dripping(content: bytes, then: bytes) -> Answer:
    def drip(peer: socket.socket) -> None:
        peer.sendall(content)
        while True:
            peer.sendall(then)
            time.sleep(0.05)

    return drip


def flooding(content: bytes, then: bytes) -> Answer:
    def flood(peer: socket.socket) -> None:
        peer.sendall(content)
        while True:
            peer.sendall(then)

    return flood


def once(content: bytes) -> Answer:
    return lambda peer: peer.sendall(content)


@pytest.fixture
def item(tmp_path: Path) -> Item:
    return write_items(tmp_path, "1.2.3", 1)[0]


BOMB = gzip.compress(bytes(64 << 20))
MORE = f"a response of more than {MAX_ANSWER} bytes"
SLOW = "no complete response within"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (dripping(b"", b"H"), SLOW),
        (dripping(START, b"X"), SLOW),
        (dripping(START + b"Content-Length: 100000\r\n\r\n", b" "), SLOW),
        (dripping(START + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), SLOW),
        (dripping(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", b" "), SLOW),
        (flooding(START + b"\r\n", bytes(1 << 16)), MORE),
        (flooding(START + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(1 << 16) + b"\r\n"), MORE),
        (flooding(START + b"Transfer-Encoding: chunked\r\n\r\n", bytes(1 << 16)), "no connection|" + MORE),
        (flooding(START, b"X: " + b"y" * 60_000 + b"\r\n"), "no connection|" + MORE),
        (once(START + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB), "is compressed"),
        (once(START + b"Content-Length: %d\r\n\r\n" % (1 << 40)), "no connection"),
    ],
    ids=range(11),
)
def test_it_is_given_up_with_its_reason_and_little_memory(item: Item, answer: Answer, reason: str) -> None:
    with service(answer) as peer, StowSession(peer) as session:
        for ask in (lambda: session.store(item), lambda: session.holds([item]), session.ask):
            tracemalloc.start()
            with pytest.raises(PeerBroke, match=reason):
                ask()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 8 * MAX_ANSWER


def test_json_that_is_nested_without_end_is_none(item: Item) -> None:
    body = b"[" * 500_000
    answer = once(START + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    with service(answer) as peer, StowSession(peer) as session, pytest.raises(PeerDeclined):
        session.holds([item])


def test_a_service_that_stops_reading_is_given_up(tmp_path: Path, item: Item) -> None:
    """More than the buffers of both sides hold; the time for that many bytes is added."""
    large = tmp_path / "large.dcm"
    large.write_bytes(item.path.read_bytes() + bytes(24 << 20))

    def sip(peer: socket.socket) -> None:
        while True:
            peer.recv(1)
            time.sleep(0.05)

    with (
        service(sip, reads=False) as peer,
        StowSession(peer) as session,
        pytest.raises(PeerError, match="does not answer"),
    ):
        session.store(Item(sop_uid=item.sop_uid, path=large))

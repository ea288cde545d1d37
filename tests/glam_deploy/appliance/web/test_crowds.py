"""Connections that say nothing, drip, or never end: the page and STOW-RS stay open to others."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.certificates import Authority
from support.until import until
from support.web import TOKEN, Appliance, appliance, configuration, dicom_file, exam, serving

from glam_deploy.appliance.config import WebTls
from glam_deploy.appliance.web import server
from glam_deploy.appliance.web.stow import MOST_PARTS
from glam_deploy.records import View

HEAD = b"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
STOW = HEAD + b'Content-Type: multipart/related; type="application/dicom"; boundary=glam\r\n'
PART = b"--glam\r\nContent-Type: application/dicom\r\n\r\n"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Appliance, str]]:
    with appliance(configuration(tmp_path, port=0, stow=True)) as made, serving(made) as address:
        yield made, address


def place(address: str) -> tuple[str, int]:
    url = httpx.URL(address)
    assert url.port
    return "127.0.0.1", url.port


@contextmanager
def crowd(address: str, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        peers = [stack.enter_context(socket.create_connection(place(address), 20)) for _ in range(count)]
        for peer in peers:
            with suppress(OSError):  # it has given way
                peer.sendall(sent)
        yield peers


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "], ids=["nothing", "half a head"])
def test_silent_connections_give_way(served: tuple[Appliance, str], sent: bytes) -> None:
    _, address = served
    with crowd(address, 250, sent), httpx.Client(base_url=address, timeout=20) as client:
        for _ in range(3):
            assert client.get("/health/live").status_code == 200


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The server stands still at its first connection until this is set; the others queue up in the kernel."""
    go_on, real = threading.Event(), server.BoundedProtocol.connection_made

    def connection_made(self: server.BoundedProtocol, transport: Any) -> None:
        go_on.wait(20)
        real(self, transport)

    monkeypatch.setattr(server.BoundedProtocol, "connection_made", connection_made)
    return go_on


LIVE = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(("before", "after"), [(300, 0), (0, 300), (300, 300)])
def test_a_request_in_a_burst_of_silent_connections_is_served(
    served: tuple[Appliance, str], held: threading.Event, before: int, after: int
) -> None:
    _, address = served
    with crowd(address, before, b""), crowd(address, 1, LIVE) as (honest,), crowd(address, after, b""):
        held.set()
        honest.settimeout(20)
        assert honest.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")


def test_requests_at_once_are_bounded(served: tuple[Appliance, str]) -> None:
    _, address = served
    waiting = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n"
    with crowd(address, server.MOST_REQUESTS, waiting) as peers:
        with httpx.Client(base_url=address, timeout=20) as client:
            until(lambda: client.get("/health/live").status_code == 503)
        for peer in peers:
            peer.sendall(b"0123456789")
            assert peer.recv(1 << 16).startswith(b"HTTP/1.1 4")  # not the token
        assert httpx.get(address + "/health/live", timeout=20).status_code == 200


def test_silent_tls_handshakes_give_way(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("appliance")
    tls = WebTls(certificate=certificate, key=key, authority=authority.authority)
    with (
        appliance(configuration(tmp_path, port=0, tls=tls)) as made,
        serving(made) as address,
        crowd(address, 250, b"\x16\x03\x01") as peers,
    ):
        peers[0].settimeout(20)
        assert peers[0].recv(1) == b"", "the first of 250 has given way"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("HEAD_S", 0.3), ("BODY_S", 0.3), ("ANSWER_S", 0.3), ("CHECK_S", 0.05)):
        monkeypatch.setattr(server, name, seconds)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "start",
    [b"", b"GET / HTTP/1.1\r\nX: ", STOW + b"Content-Length: 100000\r\n\r\n" + PART],
    ids=["nothing", "head", "body"],
)
def test_what_drips_is_cut_off(served: tuple[Appliance, str], start: bytes) -> None:
    _, address = served
    with crowd(address, 1, start) as (peer,), pytest.raises(OSError):
        for _ in range(3000):
            peer.sendall(b"x")
            time.sleep(0.01)


@pytest.mark.usefixtures("hasty")
def test_a_connection_that_is_used_now_and_then_is_cut_off_between_and_not_before(
    served: tuple[Appliance, str],
) -> None:
    _, address = served
    with crowd(address, 1, b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") as (peer,):
        assert b"200 OK" in peer.recv(1 << 16)
        while peer.recv(1 << 16):
            pass


def test_parts_without_end_are_not_taken(served: tuple[Appliance, str]) -> None:
    made, address = served
    body = (PART + b"junk\r\n") * 100_000 + b"--glam--\r\n"
    headers = dict(line.split(": ", 1) for line in STOW.decode().splitlines()[2:])
    answer = httpx.post(address + "/dicom-web/studies", content=body, headers=headers, timeout=60)
    assert (answer.status_code, f"more than {MOST_PARTS} parts" in answer.text) == (413, True)
    assert len(made.audited()) < MOST_PARTS + 10


def test_an_upload_goes_on_beside_a_crowd(served: tuple[Appliance, str]) -> None:
    _, address = served
    file = dicom_file(View.L_CC, exam(1))
    body = PART + file + b"\r\n--glam--\r\n"
    head = STOW + b"Content-Length: %d\r\nAccept: application/dicom+json\r\n\r\n" % len(body)
    with crowd(address, 1, head + body[:1000]) as (sender,):
        time.sleep(0.2)
        with crowd(address, 250, b""):
            sender.sendall(body[1000:])
            assert b"200 OK" in sender.recv(1 << 16)

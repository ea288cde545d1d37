"""The listener and many connections that ask for nothing, or for nonsense: nobody else is locked out."""

import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from hostile import STORE, command, context, item, pdv, request, storing
from support.listener import RULES, Post, associated, post
from support.until import until

from glam_deploy.dicom.net import listener
from glam_deploy.dicom.net.bounded_socket import MAX_REQUEST
from glam_deploy.dicom.net.listener import Rules

pytestmark = pytest.mark.usefixtures("sockets_are_closed")

ABORT = bytes([7, 0, 0, 0, 0, 4, 0, 0, 2])


@contextmanager
def crowd(here: Post, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that stay open after these bytes."""
    with ExitStack() as stack:
        peers = [stack.enter_context(socket.create_connection(("127.0.0.1", here.port), 20)) for _ in range(count)]
        for peer in peers:
            with suppress(OSError):  # it has given way
                peer.sendall(sent)
        yield peers


def everything(peer: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionError):
        while more := peer.recv(1 << 16):
            answer += more
    return answer


def test_the_request_that_is_made_here_is_accepted() -> None:
    for contexts in ([context(1)], [context(n, 40) for n in range(1, 256, 2)]):
        with post() as here, socket.create_connection(("127.0.0.1", here.port), 20) as peer:
            peer.sendall(request(*contexts))
            assert peer.recv(1) == b"\x02"


@pytest.mark.parametrize("sent", [b"", b"\x01", request(context(1))[:50]], ids=["nothing", "a byte", "half"])
def test_connections_that_end_early_hold_nothing(sent: bytes) -> None:
    before = threading.active_count()
    with post(Rules(ae_title="GLAM", senders=RULES.senders, max_associations=25, idle_s=600)) as here:
        with crowd(here, 200, sent):
            pass
        assert associated(here.port).send_c_echo().Status == 0
        until(lambda: threading.active_count() < before + 10)


@pytest.mark.parametrize("sent", [b"", request(context(1))[:50]], ids=["nothing", "half"])
def test_connections_that_wait_give_way_to_who_asks(sent: bytes) -> None:
    with (
        post(Rules(ae_title="GLAM", senders=RULES.senders, max_associations=25, idle_s=600)) as here,
        crowd(here, 200, sent),
    ):
        for _ in range(3):
            association = associated(here.port)
            assert association.send_c_echo().Status == 0
            association.release()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "does not use DICOM: its first byte is 0x47"),
        (b"\x04\x00\x00\x00\x00\x04abcd", "not an association request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "uses TLS"),
        (bytes(100), "does not use DICOM"),
        (b"\x01\x00" + struct.pack(">L", MAX_REQUEST + 1) + bytes(10), f"up to {MAX_REQUEST}"),
        (request(*[context(n) for n in range(10_000)])[: MAX_REQUEST + 1000], "of 500114 bytes, expected up to 262144"),
        (request(*[context(n) for n in range(1000)]), "1000 presentation contexts, expected up to 8192 and 128"),
        (request(item(0x20, bytes(4) + item(0x40, b"") * 16_000)), "16[0-9]{3} items"),
        (request(more=b"\x20\x00\xff\xff" + bytes(10)), "wrong item lengths"),
        (request(more=b"\x20\x00\x00"), "wrong item lengths"),
        (b"\x01\x00\x00\x00\x00\x04abcd", "cannot be decoded"),
        (request(item(0x20, b"\x01")), "cannot be decoded"),
    ],
    ids=range(12),
)
def test_what_is_no_request_is_answered_at_once(sent: bytes, reason: str) -> None:
    with (
        post(Rules(ae_title="GLAM", senders=RULES.senders, max_associations=3, idle_s=600)) as here,
        crowd(here, 1, sent) as (peer,),
    ):
        assert everything(peer)[:9] in (ABORT, b"")  # a reset, where bytes were left unread
        until(lambda: bool(here.told))
        assert re.search(reason, here.told[0].reason), here.told


def test_a_tls_client_is_told_at_once_that_this_is_no_tls_port() -> None:
    with post() as here, socket.create_connection(("127.0.0.1", here.port), 20) as plain:
        context = ssl.create_default_context()
        with pytest.raises(OSError):
            context.wrap_socket(plain, server_hostname="localhost")
        until(lambda: here.said("rejected") == ["the peer uses TLS, but this is the DICOM port without TLS"])


def test_a_request_byte_by_byte_is_cut_off() -> None:
    with (
        post(Rules(ae_title="GLAM", senders=RULES.senders, max_associations=3, idle_s=0.3)) as here,
        crowd(here, 1) as (peer,),
    ):
        with pytest.raises(OSError):
            for byte in request(context(1), more=bytes(2000)):
                peer.sendall(bytes([byte]))
                time.sleep(0.005)
        until(lambda: here.said("rejected") == ["no complete association request was received in time"])


# associations


ECHO = command((0x0002, b"1.2.840.10008.1.1\0"), (0x0100, b"\x30\0"), (0x0110, b"\1\0"), (0x0800, b"\1\1"))


@contextmanager
def in_association(here: Post, sop_class: bytes = b"1.2.840.10008.5.1.4.1.1.1.2") -> Iterator[socket.socket]:
    with crowd(here, 1, storing(sop_class)) as (peer,):
        assert peer.recv(1 << 16)[0] == 2
        yield peer


def test_a_data_set_in_fragments_of_one_byte_is_cut_off() -> None:
    with (
        post(Rules(ae_title="GLAM", senders=RULES.senders, max_associations=3, idle_s=0.5)) as here,
        in_association(here) as peer,
    ):
        peer.sendall(pdv(3, STORE))
        with pytest.raises(OSError):
            for _ in range(3000):
                peer.sendall(pdv(0, b"x"))
                time.sleep(0.005)
        until(lambda: here.listener.associations == 0)
        assert here.said("aborted") == ["a data set slower than 16384 bytes per second"]
        assert here.uploads[0].left


def test_a_data_set_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "LEAST_OBJECT", 1 << 20)
    rules = Rules(ae_title="GLAM", senders=RULES.senders, max_associations=3, idle_s=60, max_object_bytes=1 << 20)
    with post(rules) as here, in_association(here) as peer:
        peer.sendall(pdv(3, STORE))
        with pytest.raises(OSError):
            while True:
                peer.sendall(pdv(0, bytes(60_000)))
        until(lambda: here.said("aborted") == ["a data set of more than 2097152 bytes"])
        assert len(here.uploads[0].data) < 3 << 20


def test_who_asks_without_waiting_for_answers_is_cut_off() -> None:
    with (
        post(Rules(ae_title="GLAM", senders=RULES.senders, max_associations=3, idle_s=60)) as here,
        in_association(here, b"1.2.840.10008.1.1") as peer,
    ):
        with pytest.raises(OSError):
            while True:
                peer.sendall(pdv(3, ECHO) * 100)
        until(lambda: here.said("aborted") == ["more than 100 unanswered messages"])
        until(lambda: here.listener.associations == 0)

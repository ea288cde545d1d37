"""SMTP servers without end: no reply makes the sender use memory or time without limit."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from support.notify import EXAMPLE, entry

from glam_deploy.appliance.notify.bounded_smtp import MAX_REPLIES
from glam_deploy.appliance.notify.mail import EmailClient
from glam_deploy.errors import PeerBroke, PeerError

PIECE = b"250-" + b"A" * 1020 + b"\r\n"
MOST = 64 << 20
"""Bytes after which the servers here end by themselves."""
Reply = Callable[[socketserver.StreamRequestHandler], None]


class Server:
    """Answers each command with the entry of `replies`; counts the bytes of those without end."""

    def __init__(self, replies: dict[bytes, Reply]) -> None:
        self.replies, self.sent, self.closed = replies, 0, threading.Event()

    @contextmanager
    def running(self, timeout_s: float) -> Iterator[EmailClient]:
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    server.replies.get(b"", say("220 hello"))(self)
                    while line := self.rfile.readline():
                        server.replies.get(line[:4].upper().strip(), say("250 OK"))(self)
                server.closed.set()

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as made:
            thread = threading.Thread(target=made.serve_forever, args=(0.01,))
            thread.start()
            to = entry(
                kind="email",
                host="127.0.0.1",
                port=made.server_address[1],
                security="none",
                sender="glam@hospital.example",
                recipients=["physics@hospital.example"],
            )
            assert to.kind == "email"
            try:
                yield EmailClient(to, timeout_s)
            finally:
                made.shutdown()
                thread.join()

    def endless(self, handler: socketserver.StreamRequestHandler) -> None:
        while self.sent < MOST:
            self.sent += handler.connection.send(PIECE)

    def dripping(self, handler: socketserver.StreamRequestHandler) -> None:
        """A byte at a time, far more often than the limit for the next byte, for far longer than a session may take."""
        for _ in range(200):
            handler.connection.sendall(b"2")
            self.closed.wait(0.05)


def say(text: str) -> Reply:
    return lambda handler: handler.connection.sendall(f"{text}\r\n".encode())


@pytest.mark.parametrize(("command", "error"), [(b"", PeerError), (b"EHLO", PeerError), (b"MAIL", PeerBroke)])
def test_a_reply_without_end_ends_the_session(command: bytes, error: type[PeerError]) -> None:
    server = Server({})
    server.replies[command] = server.endless
    if command != b"EHLO":
        server.replies[b"EHLO"] = say("250 mail.example")
    with server.running(20.0) as client, pytest.raises(error, match=f"more than {MAX_REPLIES} bytes"):
        client.send(EXAMPLE)
    assert server.closed.wait(20)
    assert server.sent < MOST


@pytest.mark.parametrize(("command", "error"), [(b"", PeerError), (b"EHLO", PeerError), (b"MAIL", PeerBroke)])
def test_a_reply_of_single_bytes_ends_the_session(command: bytes, error: type[PeerError]) -> None:
    server = Server({})
    server.replies[command] = server.dripping
    with server.running(0.5) as client, pytest.raises(error, match="no complete response within 1 s"):
        client.send(EXAMPLE)


def test_a_message_that_was_accepted_counts_although_the_farewell_has_no_end() -> None:
    server = Server({b"DATA": say("354 go on"), b".": say("250 accepted")})
    server.replies[b"QUIT"] = server.endless
    with server.running(20.0) as client:
        assert client.send(EXAMPLE) == ""


@pytest.mark.parametrize(
    ("hello", "told"),
    [("421 too busy", r"it refuses one now \(reply 421\)"), ("SSH-2.0-x", "it sends no reply of SMTP: check `port`")],
)
def test_a_server_that_opens_no_session_is_told_in_words(hello: str, told: str) -> None:
    server = Server({b"": say(hello)})
    with server.running(5.0) as client, pytest.raises(PeerError, match=told) as caught:
        client.check()
    assert "SMTP" not in str(caught.value).replace("SMTP session", "").replace("reply of SMTP", "")


def test_a_check_names_a_server_that_ends_at_noop() -> None:
    server = Server({b"NOOP": lambda handler: handler.connection.shutdown(2)})
    with server.running(20.0) as client, pytest.raises(PeerError, match="does not answer NOOP"):
        client.check()

"""STOW-RS and QIDO-RS against a stub that answers as it is told."""

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless
from support.certificates import Authority
from support.outbox import write_items

from glam_deploy.dicom.net.delivery import Answer, Item, Outcome
from glam_deploy.dicom.net.dicomweb import WebPeer
from glam_deploy.dicom.net.stow import StowSession, ask
from glam_deploy.errors import PeerBroke, PeerDeclined, PeerError


@dataclass
class Reply:
    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Stub:
    """Answers POST with `replies` in turn, the last one again and again; GET with `found`."""

    replies: list[Reply] = field(default_factory=lambda: [Reply()])
    found: Reply = field(default_factory=lambda: Reply(204))
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    """Method, path, headers, body."""
    url: str = ""
    wake: threading.Event = field(default_factory=threading.Event)

    def peer(self, **changes: Any) -> WebPeer:
        return WebPeer(**{"url": self.url, "timeout_s": 5.0} | changes)

    @contextmanager
    def running(self, context: ssl.SSLContext | None = None) -> Iterator["Stub"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}/dicom-web"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.wake.set()
            server.shutdown()
            thread.join()
            server.server_close()


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self._answer(stub.replies.pop(0) if len(stub.replies) > 1 else stub.replies[0])

        def do_GET(self) -> None:
            self._answer(stub.found)

        def _answer(self, reply: Reply) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            stub.requests.append((self.command, self.path, dict(self.headers), body))
            if reply.status == 0:
                stub.wake.wait(30)
                return
            told = b"" if reply.body is None else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: Any) -> None:
            """Not on the terminal."""

    return Handler


def failed(item: Item, reason: int) -> dict[str, Any]:
    entry = {"00081155": {"vr": "UI", "Value": [item.sop_uid]}, "00081197": {"vr": "US", "Value": [reason]}}
    return {"00081198": {"vr": "SQ", "Value": [entry]}}


def stored(item: Item, warning: int) -> dict[str, Any]:
    entry = {"00081155": {"vr": "UI", "Value": [item.sop_uid]}, "00081196": {"vr": "US", "Value": [warning]}}
    return {"00081199": {"vr": "SQ", "Value": [entry]}}


def store(stub: Stub, item: Item, **changes: Any) -> Answer:
    with stub.running(), StowSession(stub.peer(**changes)) as session:
        return session.store(item)


@pytest.fixture
def item(tmp_path: Path) -> Item:
    return write_items(tmp_path, "1.2.3", 1)[0]


def test_one_part_with_the_bytes_of_the_file(item: Item) -> None:
    stub = Stub()
    assert store(stub, item).outcome is Outcome.STORED
    ((method, path, headers, body),) = stub.requests
    assert (method, path) == ("POST", "/dicom-web/studies")
    kind, boundary = headers["Content-Type"].split("; boundary=")
    assert kind == 'multipart/related; type="application/dicom"'
    before, part, after = body.split(f"--{boundary}".encode())
    assert (before, after) == (b"", b"--\r\n")
    assert part == b"\r\nContent-Type: application/dicom\r\n\r\n" + item.path.read_bytes() + b"\r\n"


@pytest.mark.parametrize(
    ("status", "body", "outcome", "told"),
    [
        (200, None, Outcome.STORED, ""),
        (202, None, Outcome.STORED, "202 Accepted"),
        (202, lambda item: stored(item, 0xB000), Outcome.STORED, "warning 0xB000"),
        (202, lambda item: failed(item, 0x0110), Outcome.REFUSED, "status 0x0110"),
        (200, lambda item: failed(item, 0xC000), Outcome.REFUSED, "status 0xC000"),
        (409, lambda item: failed(item, 0xA900), Outcome.REFUSED, "does not match the SOP class"),
        (409, lambda item: failed(item, 0xA700), Outcome.NO_ROOM, "out of resources"),
        (409, None, Outcome.REFUSED, "409 Conflict"),
        (409, lambda _: ["nonsense"], Outcome.REFUSED, "409 Conflict"),
        (200, lambda _: {"00081198": None, "00081199": {"Value": [7]}}, Outcome.STORED, ""),
        (202, lambda item: {"00081199": {"Value": [{"00081155": {"Value": item.sop_uid}}]}}, Outcome.STORED, "202"),
        (400, None, Outcome.REFUSED, "400 Bad Request"),
        (413, None, Outcome.REFUSED, "413"),
    ],
)
def test_answers_are_told_apart(
    item: Item, status: int, body: Callable[[Item], Any] | None, outcome: Outcome, told: str
) -> None:
    answer = store(Stub([Reply(status, body and body(item))]), item)
    assert answer.outcome is outcome
    assert told in answer.reason


@pytest.mark.parametrize("status", [401, 403, 404, 405, 307])
def test_a_service_that_is_not_for_us_is_no_fault_of_the_object(item: Item, status: int) -> None:
    headers = {"Location": "http://127.0.0.1:1/elsewhere"} if status == 307 else {}
    with pytest.raises(PeerError, match=str(status)) as caught:
        store(Stub([Reply(status, headers=headers)]), item)
    assert not isinstance(caught.value, PeerBroke)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_service_in_trouble_says_nothing_of_the_object(item: Item, status: int) -> None:
    with pytest.raises(PeerBroke, match=str(status)):
        store(Stub([Reply(status)]), item)


def test_a_service_that_hangs_is_given_up(item: Item) -> None:
    with pytest.raises(PeerBroke, match="no response in time"):
        store(Stub([Reply(0)]), item, timeout_s=0.2)


def test_a_service_that_is_not_there(item: Item) -> None:
    peer = WebPeer(url="http://127.0.0.1:1/dicom-web", timeout_s=1)
    with pytest.raises(PeerError, match="no connection") as caught, StowSession(peer) as session:
        session.store(item)
    assert item.sop_uid not in str(caught.value)


@pytest.mark.parametrize("refusal", ["in the answer", "415"])
def test_what_a_service_does_not_decode_is_sent_decompressed(tmp_path: Path, refusal: str) -> None:
    (item,) = write_items(tmp_path, "1.2.3", 1, JPEG2000Lossless)
    refused = Reply(415) if refusal == "415" else Reply(409, failed(item, 0xC122))
    stub = Stub([refused, Reply(200)])
    assert store(stub, item).outcome is Outcome.STORED
    sent = pydicom.dcmread(BytesIO(stub.requests[1][3].split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]))
    original = pydicom.dcmread(item.path)
    assert not sent.file_meta.TransferSyntaxUID.is_compressed
    assert (sent.pixel_array == original.pixel_array).all()
    assert sent.SOPInstanceUID == original.SOPInstanceUID


def test_what_is_not_compressed_is_not_sent_twice(item: Item) -> None:
    stub = Stub([Reply(409, failed(item, 0xC122))])
    assert store(stub, item).outcome is Outcome.REFUSED
    assert len(stub.requests) == 1


def test_a_file_that_is_missing_is_the_objects_fault(tmp_path: Path) -> None:
    answer = store(Stub(), Item(sop_uid="1.2.3", path=tmp_path / "no.dcm"))
    assert answer.outcome is Outcome.REFUSED
    assert "cannot be read" in answer.reason


@pytest.mark.parametrize(
    ("secrets", "header"),
    [
        ({"token": "t" * 40}, "Bearer " + "t" * 40),
        ({"user": "glam", "password": "pass"}, "Basic " + base64.b64encode(b"glam:pass").decode()),
        ({}, None),
    ],
)
def test_secrets_are_shown_and_not_told(
    item: Item, secrets: dict[str, str], header: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login netrc password netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    stub = Stub()
    store(stub, item, **secrets)
    assert stub.requests[0][2].get("Authorization") == header
    told = repr(stub.peer(**secrets)) + str(stub.peer(**secrets))
    assert not any(value in told for name, value in secrets.items() if name != "user")


def test_query_shows_what_is_there(tmp_path: Path) -> None:
    items = write_items(tmp_path, "1.2.3", 2)
    stub = Stub(found=Reply(200, [{"00080018": {"vr": "UI", "Value": [items[0].sop_uid]}}, {}]))
    with stub.running(), StowSession(stub.peer()) as session:
        assert session.holds(items) == {items[0].sop_uid}
    dataset = pydicom.dcmread(items[0].path)
    ((_, path, headers, _),) = stub.requests
    assert path == f"/dicom-web/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances"
    assert headers["Accept"] == "application/dicom+json"


@pytest.mark.parametrize("status", [204, 404])
def test_nothing_found(item: Item, status: int) -> None:
    stub = Stub(found=Reply(status))
    with stub.running(), StowSession(stub.peer()) as session:
        assert session.holds([item]) == frozenset()


@pytest.mark.parametrize("reply", [Reply(403), Reply(200, {"no": "list"}), Reply(501)])
def test_a_service_that_answers_no_query(item: Item, reply: Reply) -> None:
    stub = Stub(found=reply)
    with stub.running(), StowSession(stub.peer()) as session, pytest.raises(PeerDeclined, match="query = false"):
        session.holds([item])


def test_a_sign_of_life() -> None:
    with Stub().running() as stub:
        assert 0 < ask(stub.peer()) < 5
    with Stub(found=Reply(501)).running() as stub:
        ask(stub.peer())
    for status in (401, 503):
        with Stub(found=Reply(status)).running() as stub, pytest.raises(PeerError, match=str(status)):
            ask(stub.peer())


def test_mutual_tls(item: Item, tmp_path: Path) -> None:
    authority, rogue = Authority(tmp_path / "a"), Authority(tmp_path / "b", "rogue")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*authority.sign("pacs"))
    certificate, key = authority.sign("glam")
    ours = {"certificate": certificate, "key": key, "authority": authority.authority}
    with Stub().running(context) as stub:
        with StowSession(stub.peer(**ours)) as session:
            assert session.store(item).outcome is Outcome.STORED
        for wrong in ({"authority": rogue.authority}, {"certificate": None, "key": None}, {"authority": None}):
            with StowSession(stub.peer(**ours | wrong)) as session, pytest.raises(PeerError):
                session.store(item)
    assert len(stub.requests) == 1

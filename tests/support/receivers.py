"""Receivers of notifications, with software of others where there is some: HTTP, SMTP, HL7 over MLLP, FHIR."""

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import parse_qs, urlsplit

import hl7
import hl7.mllp
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from support.certificates import Authority


@dataclass
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class WebReceiver:
    """An HTTP server that answers each request with `answer(request)`: a status and a body."""

    answer: Callable[[Request], tuple[int, bytes]] = lambda request: (204, b"")
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    authority: Path | None = None

    @contextmanager
    def running(self, certificates: Authority | None = None) -> Iterator["WebReceiver"]:
        """With `certificates`: over TLS."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        if certificates:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*certificates.sign("receiver"))
            server.socket = context.wrap_socket(server.socket, server_side=True)
            self.authority = certificates.authority
        self.url = f"http{'s' * bool(certificates)}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    @property
    def posts(self) -> list[Request]:
        return [request for request in self.requests if request.method in ("POST", "PUT")]


def _handler_of(receiver: WebReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, body)
            receiver.requests.append(request)
            status, content = receiver.answer(request)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "https://elsewhere.example/")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_OPTIONS = handle_any

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def fhir_server(check: Callable[[dict[str, Any]], None]) -> tuple[WebReceiver, dict[tuple[str, str], dict[str, Any]]]:
    """A FHIR server that stores what `check` does not object to, and its resources by type and id."""
    held: dict[tuple[str, str], dict[str, Any]] = {}

    def identified(kind: str, query: str) -> list[str]:
        system, _, value = parse_qs(query)["identifier"][0].partition("|")
        wanted = {"system": system, "value": value}
        return [name for (of, name), resource in held.items() if of == kind and wanted in resource["identifier"]]

    def answer(request: Request) -> tuple[int, bytes]:
        url = urlsplit(request.path)
        kind, _, name = url.path.removeprefix("/").partition("/")
        if kind == "metadata":
            return 200, b'{"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}'
        if request.method == "GET":
            found = identified(kind, url.query)
            return 200, json.dumps({"resourceType": "Bundle", "total": len(found)}).encode()
        resource = request.json()
        if not name:
            name = next(iter(identified(kind, url.query)), f"{len(held) + 1}")
        elif resource.get("id") != name:
            return 400, b""
        check(resource)
        known = (kind, name) in held
        held[kind, name] = resource
        return (200 if known else 201), b"{}"

    return WebReceiver(answer=answer), held


@dataclass
class SmtpReceiver:
    """An SMTP server of aiosmtpd; `reply` refuses a message by another text than 250."""

    certificates: Authority
    reply: str = "250 OK"
    user: str = "glam"
    password: str = "password-of-the-mail-server"
    mails: list[Any] = field(default_factory=list)
    port: int = 0

    @contextmanager
    def running(self, *, tls: bool = False) -> Iterator["SmtpReceiver"]:
        """STARTTLS is required; with `tls`, TLS from the first byte instead."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.certificates.sign("mail"))
        options = {"tls_context": None if tls else context, "require_starttls": not tls, "auth_require_tls": not tls}

        async def start() -> asyncio.Server:
            loop = asyncio.get_running_loop()
            return await loop.create_server(
                lambda: SMTP(self, auth_required=not tls, authenticator=self._authenticate, loop=loop, **options),
                "127.0.0.1",
                0,
                ssl=context if tls else None,
            )

        with _serving(start) as self.port:
            yield self

    def _authenticate(self, *given: Any) -> AuthResult:
        data = given[-1]
        assert isinstance(data, LoginPassword)
        known = (data.login, data.password) == (self.user.encode(), self.password.encode())
        return AuthResult(success=known, handled=known)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.reply.startswith("250"):
            self.mails.append(envelope)
        return self.reply


@contextmanager
def _serving(start: Callable[[], Awaitable[asyncio.Server]]) -> Iterator[int]:
    """A server in a loop of its own; gives its port."""
    ports: Queue[int] = Queue()
    loop, ends = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        server = await start()
        ports.put(server.sockets[0].getsockname()[1])
        async with server:
            await ends.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield ports.get(timeout=20)
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join()
        loop.close()


@dataclass
class Hl7Receiver:
    """A listener of python-hl7; acknowledges with `code`, or with what `acknowledge` makes of the message."""

    code: str = "AA"
    acknowledge: Callable[[hl7.Message], bytes | None] | None = None
    messages: list[str] = field(default_factory=list)
    port: int = 0

    @contextmanager
    def running(self, context: ssl.SSLContext | None = None) -> Iterator["Hl7Receiver"]:
        async def start() -> asyncio.Server:
            return await hl7.mllp.start_hl7_server(
                self._handle, host="127.0.0.1", port=0, encoding="utf-8", ssl=context
            )

        with _serving(start) as self.port:
            yield self

    async def _handle(self, reader: Any, writer: Any) -> None:
        try:
            while True:
                message = await reader.readmessage()
                self.messages.append(str(message))
                if self.acknowledge is None:
                    writer.writemessage(message.create_ack(ack_code=self.code))
                else:
                    if (raw := self.acknowledge(message)) is None:
                        break
                    writer.write(raw)
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

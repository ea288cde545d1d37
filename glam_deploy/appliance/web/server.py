"""The role `web`: sockets, TLS, uvicorn around the application, and limits of time and number on connections."""

import asyncio
import logging
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any

import uvicorn
from anyio import CapacityLimiter
from uvicorn.protocols.http.h11_impl import H11Protocol

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import Config, Web, WebTls
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.ingest import Ingest
from glam_deploy.appliance.process import RECURRING
from glam_deploy.appliance.state import overview
from glam_deploy.appliance.state.database import MonotonicClock, monotonic_clock, open_database, record_heartbeat
from glam_deploy.appliance.web.access import Access, check_web, read_client_secret, read_token, secret_states
from glam_deploy.appliance.web.app import CERTIFICATE, make_app
from glam_deploy.appliance.web.attempts import Attempts
from glam_deploy.appliance.web.context import WebContext
from glam_deploy.appliance.web.forwarding import Forwarding
from glam_deploy.appliance.web.oidc import Provider
from glam_deploy.appliance.web.pictures import Pictures
from glam_deploy.appliance.web.sessions import Sessions
from glam_deploy.decoding.view_reader import ViewReader
from glam_deploy.dicom.net.bounded_socket import PendingConnections
from glam_deploy.errors import UsageError
from glam_deploy.ports import listen_remedy
from glam_deploy.regular import require_small

HEAD_S = 10.0
"""From a connection, or the last answer, to the complete head of a request."""
BODY_S, SLOWEST = 30.0, 1 << 14
"""For the body of a request, and the bytes of it in a second beyond that."""
ANSWER_S = 120.0
"""From the end of a request to the end of its answer, however slowly the client reads."""
CHECK_S = 1.0

MOST_REQUESTS = 100
"""Concurrent requests; a further one is answered with 503."""
MOST_WAITING = 100
"""Connections without a request; beyond it the oldest one of an address is closed."""
MOST_LOGINS = 8
"""Requests that wait for the OpenID Connect provider at a time."""
KERNEL_BACKLOG = 2048
"""Connections waiting to be accepted."""
AT_A_TIME = 16
"""Connections that are accepted before earlier ones are read: a request that has arrived counts as one before
`MOST_WAITING` others have been accepted after it.
"""


class CountedListener(socket.socket):
    """A listening socket that counts its connections as pending from the first byte on, TLS handshake included."""

    def __init__(self, listener: socket.socket) -> None:
        """Replaces `listener`."""
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self.pending = PendingConnections(most=MOST_WAITING, most_of_one=MOST_WAITING)

    def listen(self, backlog: int = AT_A_TIME, /) -> None:
        """Listen with a kernel queue of at least KERNEL_BACKLOG connections.

        asyncio passes as `backlog` the number of connections that it accepts at a time, which is too few for the queue.
        """
        super().listen(max(backlog, KERNEL_BACKLOG))

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        self.pending.enter(connection, str(address[0]))
        return connection, address


class BoundedProtocol(H11Protocol):
    """Closes a connection that takes too long, and counts it as pending while it has no request."""

    def __init__(self, pending: PendingConnections, **options: Any) -> None:
        super().__init__(**options)
        self._pending = pending
        self._connection: socket.socket | None = None
        self._phase: object = None
        self._since, self._bytes = 0.0, 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connection = getattr(transport.get_extra_info("socket"), "_sock", None)
        self.app_state = {CERTIFICATE: _common_name(transport.get_extra_info("peercert"))}
        self._since = self.loop.time()
        self._timer = self.loop.call_later(CHECK_S, self._check_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        if self._connection:
            self._pending.leave(self._connection)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        super().data_received(data)

    def handle_events(self) -> None:
        """Limits concurrent requests; uvicorn would count pending and closed connections as well."""
        self.limit_concurrency = 0 if len(self.tasks) >= MOST_REQUESTS else None
        super().handle_events()
        if self._connection and self.cycle and not self.cycle.response_complete:
            self._pending.leave(self._connection)

    def on_response_complete(self) -> None:
        if self._connection and self.client and not self.transport.is_closing():
            self._pending.enter(self._connection, self.client[0])
        super().on_response_complete()  # handles the next request if it has arrived already

    def _check_timeout(self) -> None:
        now, phase = self.loop.time(), self._phase_now()
        if phase != self._phase:
            self._phase, self._since, self._bytes = phase, now, 0
        elif now - self._since > self._longest():
            self.transport.abort()
            return
        if self.flow and self.flow.read_paused:  # reading is paused here, so the client is not slow
            self._since += CHECK_S
        self._timer = self.loop.call_later(CHECK_S, self._check_timeout)

    def _phase_now(self) -> tuple[object, bool]:
        """The current request (None without one), and whether all of it has arrived."""
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


HEARTBEAT_S = 1.0
STOP_S = 5
"""Seconds that requests under way have to end."""

_LOG = logging.getLogger(__name__)


def run(config: Config, stop: threading.Event) -> None:
    """Serve until `stop` is set.

    Raises UsageError for a configuration without access control, unusable certificates, and a port that is taken.
    """
    secrets = secret_states(config.web)
    check_web(config.web)
    data = DataFolder(root=config.data)
    data.make()
    with closing(open_database(data.database)) as connection:
        monotonic = monotonic_clock(connection)
        context = make_context(config, data, monotonic)
        with closing(context.ingest), closing(context.pictures), _listening(config.web) as listener:
            server = _server(config.web, context, listener)
            thread = threading.Thread(target=server.run, args=([listener],), name="uvicorn")
            thread.start()
            try:
                place = _address(config.web, listener) | {"secrets": secrets}
                _heartbeat_until(stop, thread, lambda: _send_heartbeat(connection, context, place))
            finally:
                server.should_exit = True
                thread.join()


def make_context(config: Config, data: DataFolder, monotonic: MonotonicClock) -> WebContext:
    """The shared context of the handlers; `data` has been made."""
    web, audit = config.web, open_audit(data)
    token = None if web.token_file is None else read_token(web.token_file)
    sessions = Sessions(absolute_s=web.session_s, idle_s=web.session_idle_s)
    return WebContext(
        config=config,
        data=data,
        audit=audit,
        access=Access(token, sessions, oidc=web.oidc is not None),
        forwarding=Forwarding(web),
        provider=_provider(web, monotonic),
        attempts=Attempts(),
        pictures=Pictures(ViewReader(longest_s=config.worker.longest_read_s)),
        ingest=Ingest(config, data, audit),
        uploads=CapacityLimiter(config.receive.max_associations),
        logins=CapacityLimiter(MOST_LOGINS),
        now=time.time,
        monotonic=monotonic,
    )


def _provider(web: Web, monotonic: MonotonicClock) -> Provider | None:
    if web.oidc is None:
        return None
    secret = None if web.oidc.client_secret_file is None else read_client_secret(web.oidc.client_secret_file)
    return Provider(
        web.oidc,
        secret=secret,
        redirect_uri=web.redirect_uri,
        after_logout_uri=web.after_logout_uri,
        now=time.time,
        monotonic=monotonic,
    )


def _listening(web: Web) -> CountedListener:
    family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
    try:
        return CountedListener(socket.create_server((web.host, web.port), family=family))
    except OSError as error:
        raise UsageError(
            f"web cannot listen at {web.host} port {web.port} ({error.strerror}): {listen_remedy(error)}"
        ) from error


def _address(web: Web, listener: socket.socket) -> dict[str, object]:
    return {"host": web.host, "port": listener.getsockname()[1], "tls": web.tls is not None, "stow": web.stow}


def _server(web: Web, context: WebContext, listener: CountedListener) -> uvicorn.Server:
    """The uvicorn server. It ignores proxy headers (`forwarding` reads them); logs of libraries, which may quote
    requests, are muted.
    """
    for name in ("uvicorn", "uvicorn.error", "asyncio", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    config = uvicorn.Config(
        make_app(context), loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, backlog=AT_A_TIME,
        timeout_graceful_shutdown=STOP_S,
    )  # fmt: skip
    config.load()
    config.http_protocol_class = partial(BoundedProtocol, listener.pending)  # type: ignore[assignment]
    if web.tls is not None:
        config.ssl = tls_context(web.tls, lambda code: context.audit.write("web_refused", code=code))
    return uvicorn.Server(config)


def _common_name(certificate: dict[str, Any] | None) -> str | None:
    """Common name of the subject of a client's certificate, as `ssl` parses it; None without one."""
    names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
    return names[0] if names else None


def tls_context(tls: WebTls, refused: Callable[[str], object]) -> ssl.SSLContext:
    """TLS context of a server; with an authority it requires a client certificate of that one.

    `refused` is called with a code for each failed handshake. Raises UsageError if the files cannot be used.
    """
    authority = None if tls.authority is None else str(tls.authority)
    try:
        require_small(*(path for path in (tls.certificate, tls.key, tls.authority) if path))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if authority is not None:
            context.load_verify_locations(authority)
        context.load_cert_chain(
            tls.certificate, tls.key, password=""
        )  # without it OpenSSL would prompt on the terminal
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"web.tls: {error.filename or 'its files'} cannot be used ({error.strerror or error}): check each of them"
        ) from error
    context.verify_mode = ssl.CERT_NONE if authority is None else ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    class Handshake(ssl.SSLObject):
        """Reports a failed handshake, which asyncio does not."""

        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                refused(f"tls_{(error.reason or 'failed').lower()}")
                raise

    context.sslobject_class = Handshake
    return context


def _send_heartbeat(connection: sqlite3.Connection, context: WebContext, place: Mapping[str, object]) -> None:
    """The heartbeat of a running server; "failing" once STOW-RS has met a damaged `state.db`."""
    detail = {**place, "forwarded_by": [*context.forwarding.ignored]}
    if damage := context.ingest.damage:
        record_heartbeat(connection, context.monotonic, "web", "failing", detail | {"reason": damage})
    else:
        record_heartbeat(connection, context.monotonic, "web", "ready", detail)


def _heartbeat_until(stop: threading.Event, thread: threading.Thread, send_heartbeat: Callable[[], None]) -> None:
    """Write a heartbeat every second until `stop`; a disk that is full for a while ends nothing."""
    while not stop.is_set() and thread.is_alive():
        try:
            send_heartbeat()
        except overview.READ_ERRORS as error:
            _LOG.error("state.db cannot be written (%s)", error, extra=RECURRING)
        stop.wait(HEARTBEAT_S)
    if not stop.is_set():
        raise RuntimeError("the HTTP server has ended")

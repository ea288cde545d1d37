"""The role `web`: a socket, TLS where it is asked for, and uvicorn around the application."""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import uvicorn
from anyio import CapacityLimiter

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import Config, Tls, Web
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.ingest import Ingest
from glam_deploy.appliance.state import overview
from glam_deploy.appliance.state.database import open_database
from glam_deploy.appliance.state.events import beat
from glam_deploy.appliance.state.steady import Steady, steady_clock
from glam_deploy.appliance.web.access import Access, read_token
from glam_deploy.appliance.web.app import make_app
from glam_deploy.appliance.web.pictures import Pictures
from glam_deploy.appliance.web.protocol import AT_A_TIME, BoundedProtocol, CountedListener
from glam_deploy.appliance.web.rules import check_web, names_in
from glam_deploy.appliance.web.site import Site
from glam_deploy.errors import UsageError

BEAT_S = 1.0
STOP_S = 5
"""Seconds that requests under way have to end."""

_LOG = logging.getLogger(__name__)


def run(config: Config, stop: threading.Event) -> None:
    """Serve until `stop` is set.

    Raises UsageError for a configuration that lets in whom it should not, certificates that cannot be used, and a port
    that is taken.
    """
    check_web(config.web)
    data = DataFolder(root=config.data)
    data.make()
    with closing(open_database(data.database)) as connection:
        steady = steady_clock(connection)
        site = make_site(config, data, steady)
        with closing(site.ingest), _listening(config.web) as listener:
            server = _server(config.web, site, listener)
            thread = threading.Thread(target=server.run, args=([listener],), name="uvicorn")
            thread.start()
            try:
                place = _place(config.web, listener)
                _beat_until(stop, thread, lambda: beat(connection, steady, "web", "ready", place))
            finally:
                server.should_exit = True
                thread.join()


def make_site(config: Config, data: DataFolder, steady: Steady) -> Site:
    """All that answers are made from; `data` has been made."""
    web, audit = config.web, open_audit(data)
    return Site(
        config=config,
        data=data,
        audit=audit,
        access=Access(None if web.token_file is None else read_token(web.token_file)),
        pictures=Pictures(),
        ingest=Ingest(config, data, audit),
        uploads=CapacityLimiter(config.receive.max_associations),
        hosts=hosts_of(web),
        now=time.time,
        steady=steady,
    )


def hosts_of(web: Web) -> frozenset[str]:
    """How the appliance may be called in a Host header: its own address, loopback, and its certificate's names."""
    names = {"127.0.0.1", "::1", "localhost", web.host.lower()}
    return frozenset(names | (names_in(web.tls.certificate) if web.tls else set()))


def _listening(web: Web) -> CountedListener:
    family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
    try:
        return CountedListener(socket.create_server((web.host, web.port), family=family))
    except OSError as error:
        raise UsageError(
            f"web cannot listen at {web.host} port {web.port} ({error.strerror}): choose another port, or "
            "stop what has it"
        ) from error


def _place(web: Web, listener: socket.socket) -> dict[str, object]:
    return {"host": web.host, "port": listener.getsockname()[1], "tls": web.tls is not None, "stow": web.stow}


def _server(web: Web, site: Site, listener: CountedListener) -> uvicorn.Server:
    """Behind no proxy, so no header says who asks. Libraries' logs may quote what was sent; the guard's do not."""
    for name in ("uvicorn", "uvicorn.error", "asyncio", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    config = uvicorn.Config(
        make_app(site), loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, backlog=AT_A_TIME,
        timeout_graceful_shutdown=STOP_S,
    )  # fmt: skip
    config.load()
    config.http_protocol_class = partial(BoundedProtocol, listener.room)  # type: ignore[assignment]
    if web.tls is not None:
        config.ssl = tls_context(web.tls, lambda code: site.audit.write("web_refused", code=code))
    return uvicorn.Server(config)


def tls_context(tls: Tls, refused: Callable[[str], object]) -> ssl.SSLContext:
    """Of a server that lets in only who shows a certificate of the authority; `refused` is told of all others.

    Raises UsageError where the files cannot be used.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls.authority))
        context.load_cert_chain(tls.certificate, tls.key, password="")  # without: a prompt on the terminal
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(f"web.tls: its files cannot be used ({error.strerror or error}): check all three") from error
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    class Handshake(ssl.SSLObject):
        """asyncio says nothing of a handshake that fails."""

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


def _beat_until(stop: threading.Event, thread: threading.Thread, say: Callable[[], None]) -> None:
    """Say every second that this process lives and can write; a disk that is full for a while ends nothing."""
    while not stop.is_set() and thread.is_alive():
        try:
            say()
        except overview.UNREADABLE as error:
            _LOG.error("the database takes no writes (%s)", type(error).__name__)
        stop.wait(BEAT_S)
    if not stop.is_set():
        raise RuntimeError("the HTTP server has ended")

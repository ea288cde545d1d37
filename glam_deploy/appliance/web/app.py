"""The ASGI application: routes, and the guard that every request passes."""

import logging
import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glam_deploy.appliance.config import Web
from glam_deploy.appliance.config.web import OWN_PATHS
from glam_deploy.appliance.state.database import reason_of
from glam_deploy.appliance.state.overview import READ_ERRORS
from glam_deploy.appliance.web import actions, login, monitoring, pages, stow
from glam_deploy.appliance.web.access import Refused, certificate_names
from glam_deploy.appliance.web.context import VISITOR, WebContext, client_address, visitor_of
from glam_deploy.appliance.web.forwarding import PROXIED, Forwarded
from glam_deploy.appliance.web.render import redirect, render
from glam_deploy.errors import fault


class Number(Convertor[int]):
    """Number of a row: as many digits as SQLite surely takes."""

    regex = "[0-9]{1,15}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", Number())

ROUTES = (
    Route("/", pages.home),
    Route("/studies", pages.studies),
    Route("/study/{pseudonym}", pages.study),
    Route("/failures", pages.failures),
    Route("/views/{arrival:number}/image.png", pages.image),
    Route("/views/{arrival:number}/map.png", pages.overlay),
    Route("/study/{pseudonym}/versions/{number:number}/accept", actions.confirm_correction, methods=["GET"]),
    Route("/study/{pseudonym}/versions/{number:number}/accept", actions.accept_correction, methods=["POST"]),
    Route("/find", actions.find, methods=["POST"]),
    Route("/jobs/{number:number}/retry", actions.retry_job, methods=["POST"]),
    Route("/parcels/{number:number}/retry", actions.retry_delivery, methods=["POST"]),
    Route("/notifications/{number:number}/retry", actions.retry_notification, methods=["POST"]),
    Route("/login", login.login, methods=["GET", "POST"]),
    Route("/login/start", login.start),
    Route("/login/callback", login.callback),
    Route("/logout", login.logout, methods=["POST"]),
    Route("/health/live", monitoring.live),
    Route("/health/ready", monitoring.ready),
    Route("/metrics", monitoring.metrics),
)
STOW_ROUTES = (
    Route("/dicom-web/studies", stow.store, methods=["POST"]),
    Route("/dicom-web/studies/{study}", stow.store, methods=["POST"]),
)


def make_app(context: WebContext) -> ASGIApp:
    """The ASGI application; with STOW-RS only if it is configured."""
    static = StaticFiles(directory=str(files(__package__).joinpath("static")))
    routes = [*ROUTES, *(STOW_ROUTES if context.config.web.stow else ()), Mount("/static", static)]
    inner = Starlette(routes=routes)
    inner.router.redirect_slashes = False  # its redirections do not know `public_url`
    inner.state.context = context
    guard = Guard(inner, context)

    async def respond(request: Request, error: Exception) -> Response:
        return guard.respond(request, error)

    for kind in (HTTPException, Refused, Exception):
        inner.add_exception_handler(kind, respond)
    return guard


HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        # not no-referrer, with which a browser hides the origin of its own forms as well
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Cache-Control": "no-store",
    }
)
"""Headers of every answer. No page or picture may stay in a browser's cache, which is a folder on a disk."""

_PORT = re.compile(r":[0-9]*\Z")
_SAFE = ("GET", "HEAD")
_STATUS_WORDS: Mapping[int, str] = MappingProxyType(
    {404: "There is no such page.", 405: "This page does not support that method."}
)
CERTIFICATE = "glam.certificate"
"""Key of the client's certificate in the state of a request: the common name of its subject."""
_OPEN = ("/login", "/static/", "/health/live", "/health/ready")
_LOG = logging.getLogger(__name__)


TWO_LENGTHS = "two_lengths"


class Guard:
    """ASGI middleware around the whole application: checks host, origin and access, adds headers, answers errors."""

    def __init__(self, app: ASGIApp, context: WebContext) -> None:
        self._app, self._context = app, context
        self._web, self._hosts = context.config.web, allowed_hosts(context.config.web)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        scope, forwarded = self._context.forwarding.applied({**scope, "app": self._app})
        request = Request(scope)
        try:
            self._admit(request, forwarded)
            await self._app(scope, receive, answer.send)
        except Exception as error:
            await self._fail(request, error, answer, receive)

    def _admit(self, request: Request, forwarded: Forwarded | None) -> None:
        """Put the visitor into the request's scope. Raises Refused."""
        _check_length(request)
        for host in (request.headers.get("host", ""), *(forwarded.hosts if forwarded else ())):
            self._check_host(host)
        self._check_origin(request)
        if forwarded:
            self._check_scheme(request, forwarded)
        try:
            request.scope[VISITOR] = self._context.access.visitor(
                authorization=request.headers.get("authorization"),
                cookie=request.cookies.get(login.COOKIE),
                address=client_address(request),
                certificate=request.scope.get("state", {}).get(CERTIFICATE),
            )
        except Refused as refused:
            if refused.code != "no_token" or not request.url.path.startswith(_OPEN):
                raise

    def _check_host(self, host: str) -> None:
        """Refuse an unknown host name (DNS rebinding), which would let foreign pages read ours."""
        if _PORT.sub("", host).strip("[]").lower() not in self._hosts:
            raise Refused(421, "foreign_host", "This is not a name of the appliance: use its own name or address.")

    def _check_origin(self, request: Request) -> None:
        """Refuse a state-changing request of a foreign page; programs send no origin."""
        origin = request.headers.get("origin")
        same_site = request.headers.get("sec-fetch-site") in (None, "same-origin")
        if request.method in _SAFE or (origin is None and same_site):
            return
        own = origin is not None and origin.partition("://")[2] == request.headers.get("host")
        # a proxy may send any name of the appliance as host
        if not (origin == self._web.public_origin if request.scope[PROXIED] else own):
            raise Refused(403, "foreign_origin", "This form was not sent from one of the appliance's own pages.")

    def _check_scheme(self, request: Request, forwarded: Forwarded) -> None:
        """Refuse a request that reached the proxy unencrypted; health checks of the proxy itself may."""
        https = (self._web.public_url or "").startswith("https:")
        if https and forwarded.schemes[:1] not in ((), ("https",)) and _first_part(request) != "health":
            raise Refused(403, "not_https", f"This connection is not encrypted: use {self._web.public_url}/")

    async def _fail(self, request: Request, error: Exception, answer: "_Answer", receive: Receive) -> None:
        if not isinstance(error, HTTPException | Refused | ClientDisconnect):
            # without the error's text, in which a library may quote the data
            reason = f" ({reason_of(error)})" if isinstance(error, READ_ERRORS) else ""
            _LOG.error("a request failed with %s%s", fault(error), reason)
        if not answer.begun:
            await self.respond(request, error)(request.scope, receive, answer.send)

    def respond(self, request: Request, error: Exception) -> Response:
        """The answer for an error; refusals go into the audit log."""
        if isinstance(error, HTTPException):
            return failure(request, error.status_code, _STATUS_WORDS.get(error.status_code, str(error.detail)))
        if isinstance(error, Refused):
            return self._refusal(request, error)
        return failure(request, 500, "Internal error. See the log.")

    def _refusal(self, request: Request, refused: Refused) -> Response:
        facts = {"code": refused.code, "method": _method(request), "what": _first_part(request)}
        by = visitor.user.name if (visitor := visitor_of(request)) else refused.by
        self._context.audit.write("web_refused", sender=client_address(request), by=by, **facts)
        if refused.code == "no_token" and request.method == "GET" and _wants_page(request):
            return redirect(request, login.login_url(request.url.path))
        response = failure(request, refused.status, refused.message)
        if refused.code == TWO_LENGTHS:
            response.headers["Connection"] = "close"
        if refused.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if refused.retry_after is not None:
            response.headers["Retry-After"] = str(refused.retry_after)
        return response


def _check_length(request: Request) -> None:
    """Refuse a request with two lengths (RFC 9112, 6.3): a proxy may go by the other one, and take a part of its body
    for the next request.
    """
    if "content-length" in request.headers and "transfer-encoding" in request.headers:
        raise Refused(400, TWO_LENGTHS, "The request has Content-Length and Transfer-Encoding: send one of them.")


class _Answer:
    """Sends an answer with `HEADERS`, and records whether it has begun."""

    def __init__(self, send: Send) -> None:
        self._send, self.begun = send, False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


def failure(request: Request, status: int, message: str) -> Response:
    """An error page for browsers, JSON for programs."""
    if _wants_page(request):
        return render(request, "error.html", {"status": status, "message": message}, status)
    return JSONResponse({"error": message}, status)


def allowed_hosts(web: Web) -> frozenset[str]:
    """Accepted names in a Host header: own address, loopback, and the names of `public_url` and of the certificate."""
    names = {"127.0.0.1", "::1", "localhost", web.host.lower()}
    names |= {str(urlsplit(web.public_url).hostname)} if web.public_url else set()
    return frozenset(names | (certificate_names(web.tls.certificate) if web.tls else set()))


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _method(request: Request) -> str:
    return request.method if request.method in (*_SAFE, "POST", "PUT", "DELETE", "OPTIONS") else "other"


def _first_part(request: Request) -> str:
    """First part of the path if it is a known one, else "unknown": the rest may name a study."""
    part = request.url.path.split("/")[1]
    return part if part in (*OWN_PATHS, "") else "unknown"

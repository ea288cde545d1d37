"""The ASGI application: routes, and the guard that every request passes."""

import logging
import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glam_deploy.appliance.web import monitoring, pages, stow
from glam_deploy.appliance.web.access import COOKIE, VISITOR, Refused, WebContext, client_address
from glam_deploy.appliance.web.render import render
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
    Route("/find", pages.find, methods=["POST"]),
    Route("/jobs/{number:number}/retry", pages.retry_job, methods=["POST"]),
    Route("/parcels/{number:number}/retry", pages.retry_delivery, methods=["POST"]),
    Route("/notifications/{number:number}/retry", pages.retry_notification, methods=["POST"]),
    Route("/login", pages.login, methods=["GET", "POST"]),
    Route("/logout", pages.logout, methods=["POST"]),
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
_OPEN = ("/login", "/static/", "/health/live", "/health/ready")
_LOG = logging.getLogger(__name__)


class Guard:
    """ASGI middleware around the whole application: checks host, origin and access, adds headers, answers errors."""

    def __init__(self, app: ASGIApp, context: WebContext) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        request = Request(scope)
        try:
            self._admit(request)
            await self._app(scope, receive, answer.send)
        except Exception as error:
            await self._fail(request, error, answer, receive)

    def _admit(self, request: Request) -> None:
        """Put the visitor into the request's scope. Raises Refused."""
        _check_host(request, self._context.hosts)
        _check_origin(request)
        try:
            request.scope[VISITOR] = self._context.access.visitor(
                authorization=request.headers.get("authorization"),
                cookie=request.cookies.get(COOKIE),
                address=client_address(request),
            )
        except Refused as refused:
            if refused.code != "no_token" or not request.url.path.startswith(_OPEN):
                raise

    async def _fail(self, request: Request, error: Exception, answer: "_Answer", receive: Receive) -> None:
        if not isinstance(error, HTTPException | Refused | ClientDisconnect):
            # without the error's text, in which a library may quote the data
            _LOG.error("a request failed with %s", fault(error))
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
        self._context.audit.write("web_refused", sender=client_address(request), **facts)
        if refused.code == "no_token" and request.method == "GET" and _wants_page(request):
            return RedirectResponse("/login", 303)
        response = failure(request, refused.status, refused.message)
        if refused.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if refused.retry_after is not None:
            response.headers["Retry-After"] = str(refused.retry_after)
        return response


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


def _check_host(request: Request, hosts: frozenset[str]) -> None:
    """Refuse an unknown host name (DNS rebinding), which would let foreign pages read ours."""
    name = _PORT.sub("", request.headers.get("host", "")).strip("[]").lower()
    if name not in hosts:
        raise Refused(421, "foreign_host", "This is not a name of the appliance: use its own name or address.")


def _check_origin(request: Request) -> None:
    """Refuse a state-changing request of a foreign page; programs send no origin."""
    origin = request.headers.get("origin")
    if request.method in _SAFE or (origin is None and request.headers.get("sec-fetch-site") in (None, "same-origin")):
        return
    if origin is None or origin.partition("://")[2] != request.headers.get("host"):
        raise Refused(403, "foreign_origin", "This form was not sent from one of the appliance's own pages.")


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _method(request: Request) -> str:
    return request.method if request.method in (*_SAFE, "POST", "PUT", "DELETE", "OPTIONS") else "other"


def _first_part(request: Request) -> str:
    """First part of the path if it is a known one, else "unknown": the rest may name a study."""
    part = request.url.path.split("/")[1]
    known = (
        "study",
        "studies",
        "failures",
        "find",
        "views",
        "jobs",
        "parcels",
        "notifications",
        "health",
        "metrics",
        "dicom-web",
    )
    return part if part in (*known, "login", "logout", "static", "") else "unknown"

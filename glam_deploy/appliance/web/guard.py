"""What every request passes before anything looks at it, and what every answer carries."""

import logging
import re
from collections.abc import Mapping
from types import MappingProxyType

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glam_deploy.appliance.web.access import VISITOR, Refused, address_of
from glam_deploy.appliance.web.render import render
from glam_deploy.appliance.web.site import Site
from glam_deploy.errors import fault

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
"""Of every answer. No page, picture or figure may stay in a browser's cache, which is a folder on somebody's disk."""

COOKIE = "glam-session"

_PORT = re.compile(r":[0-9]*\Z")
_SAFE = ("GET", "HEAD")
_STATUS_WORDS: Mapping[int, str] = MappingProxyType(
    {404: "There is no such page.", 405: "This page cannot be asked for in that way."}
)
_OPEN = ("/login", "/static/", "/health/live", "/health/ready")
_LOG = logging.getLogger(__name__)


class Guard:
    """ASGI middleware around the whole application; the outermost, so that nothing is answered past it."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app, self._site = app, site

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
        """Raises Refused; else the request's scope knows its visitor."""
        _check_host(request, self._site.hosts)
        _check_origin(request)
        try:
            request.scope[VISITOR] = self._site.access.visitor(
                authorization=request.headers.get("authorization"),
                cookie=request.cookies.get(COOKIE),
                address=address_of(request),
            )
        except Refused as refused:
            if refused.code != "no_token" or not request.url.path.startswith(_OPEN):
                raise

    async def _fail(self, request: Request, error: Exception, answer: "_Answer", receive: Receive) -> None:
        if not isinstance(error, HTTPException | Refused | ClientDisconnect):
            # never the error's own text, in which a library may quote what it stumbled on
            _LOG.error("a request ended by %s", fault(error))
        if not answer.begun:
            await self.respond(request, error)(request.scope, receive, answer.send)

    def respond(self, request: Request, error: Exception) -> Response:
        """What is said of an error; a refusal is audited."""
        if isinstance(error, HTTPException):
            return failure(request, error.status_code, _STATUS_WORDS.get(error.status_code, str(error.detail)))
        if isinstance(error, Refused):
            return self._refusal(request, error)
        return failure(request, 500, "Something went wrong here. The log says where.")

    def _refusal(self, request: Request, refused: Refused) -> Response:
        facts = {"code": refused.code, "method": _method(request), "what": _first_part(request)}
        self._site.audit.write("web_refused", sender=address_of(request), **facts)
        if refused.code == "no_token" and request.method == "GET" and _wants_page(request):
            return RedirectResponse("/login", 303)
        response = failure(request, refused.status, refused.message)
        if refused.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if refused.retry_after is not None:
            response.headers["Retry-After"] = str(refused.retry_after)
        return response


class _Answer:
    """Sends an answer with `HEADERS`; knows whether it has begun."""

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
    """A page for people, JSON for programs."""
    if _wants_page(request):
        return render(request, "error.html", {"status": status, "message": message}, status)
    return JSONResponse({"error": message}, status)


def _check_host(request: Request, hosts: frozenset[str]) -> None:
    """A foreign name that was made to lead here (DNS rebinding) would let foreign pages read ours."""
    name = _PORT.sub("", request.headers.get("host", "")).strip("[]").lower()
    if name not in hosts:
        raise Refused(421, "foreign_host", "This appliance is not called by that name: use its own name or address.")


def _check_origin(request: Request) -> None:
    """What changes something comes from our own pages, or from a program, which names no origin."""
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
    """The beginning of the path, if it is one of ours: the rest may name a study, and any path may hold anything."""
    part = request.url.path.split("/")[1]
    known = ("study", "studies", "failures", "find", "views", "jobs", "parcels", "health", "metrics", "dicom-web")
    return part if part in (*known, "login", "logout", "static", "") else "unknown"

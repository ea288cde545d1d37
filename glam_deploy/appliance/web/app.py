"""The application: routes around a `Site`, behind the guard."""

from importlib.resources import files

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from glam_deploy.appliance.web import actions, health, pages, stow
from glam_deploy.appliance.web.access import Refused
from glam_deploy.appliance.web.guard import Guard
from glam_deploy.appliance.web.metrics import metrics
from glam_deploy.appliance.web.site import Site


class Number(Convertor[int]):
    """The number of a row: as many digits as SQLite surely takes."""

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
    Route("/find", actions.find, methods=["POST"]),
    Route("/jobs/{number:number}/retry", actions.retry_job, methods=["POST"]),
    Route("/parcels/{number:number}/retry", actions.retry_parcel, methods=["POST"]),
    Route("/login", actions.login, methods=["GET", "POST"]),
    Route("/logout", actions.logout, methods=["POST"]),
    Route("/health/live", health.live),
    Route("/health/ready", health.ready),
    Route("/metrics", metrics),
)
STOW_ROUTES = (
    Route("/dicom-web/studies", stow.store, methods=["POST"]),
    Route("/dicom-web/studies/{study}", stow.store, methods=["POST"]),
)


def make_app(site: Site) -> ASGIApp:
    """The ASGI application; STOW-RS only where the configuration says so."""
    static = StaticFiles(directory=str(files(__package__).joinpath("static")))
    routes = [*ROUTES, *(STOW_ROUTES if site.config.web.stow else ()), Mount("/static", static)]
    inner = Starlette(routes=routes)
    inner.state.site = site
    guard = Guard(inner, site)

    async def respond(request: Request, error: Exception) -> Response:
        return guard.respond(request, error)

    for kind in (HTTPException, Refused, Exception):
        inner.add_exception_handler(kind, respond)
    return guard

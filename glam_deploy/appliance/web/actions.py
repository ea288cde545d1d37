"""What changes something: logging in and out, and trying again. Every form carries its page's token."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from glam_deploy.appliance.state import jobs, parcels, story
from glam_deploy.appliance.state.database import open_database
from glam_deploy.appliance.state.overview import reading
from glam_deploy.appliance.web.access import Refused, address_of, same_form_token, visitor_of
from glam_deploy.appliance.web.guard import COOKIE
from glam_deploy.appliance.web.render import render
from glam_deploy.appliance.web.site import Site, site_of
from glam_deploy.errors import UsageError

MOST_FORM_BYTES = 4096
FORM_SECONDS = 10.0

Transition = Callable[[Any, int], None]
"""Of a job or parcel with this number; takes a connection."""


async def login(request: Request) -> Response:
    """The form, and what it is answered with."""
    site = site_of(request)
    if not site.access.asks or (request.method != "POST" and visitor_of(request)):
        return RedirectResponse("/", 303)
    if request.method != "POST":
        return render(request, "login.html", {"message": None})
    given = (await _form(request)).get("token", "")
    try:
        site.access.check_token(given.strip(), address_of(request))
    except Refused as refused:
        site.audit.write("web_refused", sender=address_of(request), code=refused.code, method="POST", what="login")
        return render(request, "login.html", {"message": refused.message}, refused.status)
    site.audit.write("web_login", sender=address_of(request))
    response = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, site.access.sessions.open(), httponly=True, samesite="strict", secure=secure)
    return response


async def logout(request: Request) -> Response:
    """The session is over, here and in the browser."""
    await _checked_form(request)
    site_of(request).access.sessions.close(request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


async def find(request: Request) -> Response:
    """Straight to the one study that is meant; by POST, so that a UID is in no address and no browser's history."""
    text = (await _checked_form(request)).get("q", "").strip().lower()
    lines = await run_in_threadpool(_find, site_of(request), text)
    if len(lines) == 1:
        return RedirectResponse(f"/study/{lines[0].pseudonym}", 303)
    return render(request, "found.html", {"lines": lines})


def _find(site: Site, text: str) -> list[story.StudyLine]:
    with reading(site.data.database) as connection:
        return story.find(connection, text)


async def retry_job(request: Request) -> Response:
    """As `glam-deploy queue retry`: a dead job is worked on again."""
    return await _retried(request, "job", jobs.retry)


async def retry_parcel(request: Request) -> Response:
    """As `glam-deploy queue retry`: a dead or waiting parcel is sent again, and its target tried at once."""
    return await _retried(request, "parcel", parcels.retry)


async def _retried(request: Request, what: str, transition: Transition) -> Response:
    """Back to the page of the study, where the form says which it is."""
    study = (await _checked_form(request)).get("study", "")
    site, number = site_of(request), request.path_params["number"]
    await run_in_threadpool(_change, site, transition, number)
    site.audit.write("web_retry", sender=address_of(request), what=what, number=number)
    return RedirectResponse(f"/study/{study}" if re.fullmatch("[0-9a-f]{16}", study) else "/failures", 303)


def _change(site: Site, transition: Transition, number: int) -> None:
    connection = open_database(site.data.database)
    try:
        transition(connection, number)
    except UsageError as error:
        raise Refused(409, "nothing_to_retry", f"Nothing was changed: {error}.") from error
    finally:
        connection.close()


async def _checked_form(request: Request) -> dict[str, str]:
    """A form of one of our pages. Raises Refused."""
    form, visitor = await _form(request), visitor_of(request)
    if visitor is None or not same_form_token(form.get("form_token", ""), visitor):
        raise Refused(403, "form_token", "This form is not from a page of your session: load the page again.")
    return form


async def _form(request: Request) -> dict[str, str]:
    """The last value of each field, of a form that is as short as ours are."""
    body = b""
    with anyio.move_on_after(FORM_SECONDS) as deadline:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_FORM_BYTES:
                raise Refused(413, "form_too_large", "This form is too long.")
    if deadline.cancelled_caught:
        raise Refused(408, "idle", "This form did not come to its end in time.")
    fields = parse_qs(body.decode("utf-8", "replace"))
    return {name: values[-1] for name, values in fields.items()}

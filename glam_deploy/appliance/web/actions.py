"""Handlers that change something: login, logout, search by form, retry. Every form carries a CSRF token."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from glam_deploy.appliance.state import deliveries, jobs, study_detail
from glam_deploy.appliance.state.database import open_database
from glam_deploy.appliance.state.overview import open_read_only
from glam_deploy.appliance.web.access import COOKIE, Refused, client_address, form_token_matches, visitor_of
from glam_deploy.appliance.web.context import WebContext, context_of
from glam_deploy.appliance.web.render import render
from glam_deploy.errors import UsageError

MOST_FORM_BYTES = 4096
FORM_SECONDS = 10.0

Transition = Callable[[Any, int], None]
"""Changes the job or delivery with this number; takes a connection."""


async def login(request: Request) -> Response:
    """The login form, and its submission."""
    context = context_of(request)
    if not context.access.requires_token or (request.method != "POST" and visitor_of(request)):
        return RedirectResponse("/", 303)
    if request.method != "POST":
        return render(request, "login.html", {"message": None})
    given = (await _form(request)).get("token", "")
    try:
        context.access.check_token(given.strip(), client_address(request))
    except Refused as refused:
        context.audit.write(
            "web_refused", sender=client_address(request), code=refused.code, method="POST", what="login"
        )
        return render(request, "login.html", {"message": refused.message}, refused.status)
    context.audit.write("web_login", sender=client_address(request))
    response = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, context.access.sessions.open(), httponly=True, samesite="strict", secure=secure)
    return response


async def logout(request: Request) -> Response:
    """End the session, here and in the browser."""
    await _checked_form(request)
    context_of(request).access.sessions.close(request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


async def find(request: Request) -> Response:
    """Redirect to the study searched for; a POST, so that a UID appears in no URL and no browser history."""
    text = (await _checked_form(request)).get("q", "").strip().lower()
    lines = await run_in_threadpool(_find, context_of(request), text)
    if len(lines) == 1:
        return RedirectResponse(f"/study/{lines[0].pseudonym}", 303)
    return render(request, "search_results.html", {"lines": lines})


def _find(context: WebContext, text: str) -> list[study_detail.StudySummary]:
    with open_read_only(context.data.database) as connection:
        return study_detail.find_studies(connection, text)


async def retry_job(request: Request) -> Response:
    """Retry a dead job, as `glam-deploy queue retry`."""
    return await _retried(request, "job", jobs.retry)


async def retry_delivery(request: Request) -> Response:
    """Retry a dead or pending delivery and its target at once, as `glam-deploy queue retry`."""
    return await _retried(request, "parcel", deliveries.retry)  # the audit log's word, kept for log rules


async def _retried(request: Request, what: str, transition: Transition) -> Response:
    """Apply the transition and redirect to the page of the study that the form names."""
    study = (await _checked_form(request)).get("study", "")
    context, number = context_of(request), request.path_params["number"]
    await run_in_threadpool(_change, context, transition, number)
    context.audit.write("web_retry", sender=client_address(request), what=what, number=number)
    return RedirectResponse(f"/study/{study}" if re.fullmatch("[0-9a-f]{16}", study) else "/failures", 303)


def _change(context: WebContext, transition: Transition, number: int) -> None:
    connection = open_database(context.data.database)
    try:
        transition(connection, number)
    except UsageError as error:
        raise Refused(409, "nothing_to_retry", f"Nothing was changed: {error}.") from error
    finally:
        connection.close()


async def _checked_form(request: Request) -> dict[str, str]:
    """The fields of a form from one of our pages. Raises Refused."""
    form, visitor = await _form(request), visitor_of(request)
    if visitor is None or not form_token_matches(form.get("form_token", ""), visitor):
        raise Refused(403, "form_token", "This form is not from a page of your session: load the page again.")
    return form


async def _form(request: Request) -> dict[str, str]:
    """The last value of each field, from a body of at most MOST_FORM_BYTES."""
    body = b""
    with anyio.move_on_after(FORM_SECONDS) as deadline:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_FORM_BYTES:
                raise Refused(413, "form_too_large", "This form is too long.")
    if deadline.cancelled_caught:
        raise Refused(408, "idle", "This form did not arrive completely in time.")
    fields = parse_qs(body.decode("utf-8", "replace"))
    return {name: values[-1] for name, values in fields.items()}

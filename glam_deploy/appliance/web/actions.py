"""Forms that find or change something; to change something needs the role operator. Every change is audited."""

import re
from collections.abc import Callable
from contextlib import closing
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from glam_deploy.appliance import corrections
from glam_deploy.appliance.state import deliveries, jobs, notifications, study_detail
from glam_deploy.appliance.state.database import open_database
from glam_deploy.appliance.state.overview import open_read_only
from glam_deploy.appliance.web.access import Refused
from glam_deploy.appliance.web.context import WebContext, client_address, context_of, operator_of
from glam_deploy.appliance.web.forms import checked_form
from glam_deploy.appliance.web.render import redirect, render
from glam_deploy.errors import UsageError

Transition = Callable[[Any, int], None]
"""Changes the job, delivery or notification with this number; takes a connection."""


async def find(request: Request) -> Response:
    """Redirect to the study searched for; a POST, so that a UID appears in no URL and no browser history."""
    text = (await checked_form(request)).get("q", "").strip().lower()
    lines = await run_in_threadpool(_find, context_of(request), text)
    if len(lines) == 1:
        return redirect(request, f"/study/{lines[0].pseudonym}")
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


async def retry_notification(request: Request) -> Response:
    """Retry a dead or pending notification and its receiver at once, as `glam-deploy queue retry`."""
    return await _retried(request, "notification", notifications.retry)


async def _retried(request: Request, what: str, transition: Transition) -> Response:
    """Apply the transition and redirect to the page of the study that the form names."""
    study, by = (await checked_form(request)).get("study", ""), operator_of(request).user.name
    context, number = context_of(request), request.path_params["number"]
    await run_in_threadpool(_change, context, transition, number)
    context.audit.write("web_retry", sender=client_address(request), by=by, what=what, number=number)
    return redirect(request, f"/study/{study}" if re.fullmatch("[0-9a-f]{16}", study) else "/failures")


def _change(context: WebContext, transition: Transition, number: int) -> None:
    with closing(open_database(context.data.database)) as connection:
        try:
            transition(connection, number)
        except UsageError as error:
            raise Refused(409, "nothing_to_retry", f"Nothing was changed: {error}.") from error


def confirm_correction(request: Request) -> Response:
    """What it means to accept a version of an image, and the form that does it."""
    operator_of(request)
    pseudonym, version = request.path_params["pseudonym"], _version(request)
    return render(request, "accept_correction.html", {"pseudonym": pseudonym, "row": version})


async def accept_correction(request: Request) -> Response:
    """Let a version take the place of the stored image, as `glam-deploy queue accept-correction`."""
    digest, by = (await checked_form(request)).get("sha256", ""), operator_of(request).user.name
    await run_in_threadpool(_accept, request, digest, by)
    return redirect(request, f"/study/{request.path_params['pseudonym']}")


def _accept(request: Request, digest: str, by: str) -> None:
    context, version = context_of(request), _version(request)
    if version["sha256"] != digest:  # sent twice: its number is now that of the version before
        raise Refused(409, "nothing_to_accept", "Nothing was changed: the version with this number is another one now.")
    try:
        corrections.accept(context.ingest.spool, context.audit, version, by=by, sender=client_address(request))
    except UsageError as error:
        raise Refused(409, "nothing_to_accept", f"Nothing was changed: {error}.") from error


def _version(request: Request) -> study_detail.Row:
    """The version that the path names."""
    with open_read_only(context_of(request).data.database) as connection:
        study = study_detail.study_detail(connection, request.path_params["pseudonym"])
    for row in study.versions if study else ():
        if row["id"] == request.path_params["number"]:
            return row
    raise HTTPException(404)

"""The HTML pages and the handlers of their forms.

Each page reads one snapshot of `state.db`; a study's UID appears on its own page only. Every form carries a CSRF token.
"""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from sqlite3 import Connection
from typing import Any
from urllib.parse import parse_qs

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from glam_deploy.appliance.config import Target
from glam_deploy.appliance.data import PICTURE
from glam_deploy.appliance.state import deliveries, fetches, jobs, overview, senders, study_detail
from glam_deploy.appliance.state.database import open_database
from glam_deploy.appliance.state.overview import Component, TargetCounts, open_read_only
from glam_deploy.appliance.web import monitoring
from glam_deploy.appliance.web.access import (
    COOKIE,
    Refused,
    WebContext,
    client_address,
    context_of,
    form_token_matches,
    visitor_of,
)
from glam_deploy.appliance.web.notices import VIEWS, NoticeShares, notice_shares
from glam_deploy.appliance.web.render import latency, render, throughput
from glam_deploy.appliance.web.view_drawing import view_drawing
from glam_deploy.appliance.web.view_results import seen_window, summary
from glam_deploy.errors import GlamError, UsageError
from glam_deploy.exams import TITLE, ExamScores, ViewScores, score_exams
from glam_deploy.records import View

PLOTTED = 5000
"""Most jobs, and deliveries of a target, in a plot: a day's work of a busy site."""


MOST_FORM_BYTES = 4096
FORM_SECONDS = 10.0
Transition = Callable[[Any, int], None]
"""Changes the job or delivery with this number; takes a connection."""


def home(request: Request) -> Response:
    """Overview: queue by stage, throughput, latency, processes, targets and disk."""
    context = context_of(request)
    health = monitoring.check(context)
    with overview.open_read_only(context.data.database) as connection:
        backlog = {one.stage: one for one in overview.backlog(connection)}
        counts = overview.targets(connection)
        known_senders = senders.senders(connection)
        finished = overview.latest_job_timings(connection, PLOTTED)
        delivered = overview.latest_delivery_timings(connection, PLOTTED)
        shares = _notice_shares(context, connection)
        fetch_counts = fetches.counts(connection)
    now, worker = context.now(), health.components.get("worker")
    values = {
        "now": now,
        "health": health,
        "backlog": backlog,
        "throughput": throughput(finished, now),
        "latency": latency(finished, delivered, now),
        "processes": [(name, health.components.get(name)) for name in monitoring.PROCESSES],
        "component_state": monitoring.component_state,
        "senders": known_senders,
        "targets": _targets(context, counts, health.components),
        "worker": worker.detail if worker else {},
        "disk": _disk(context),
        "shares": shares,
        "fetch": context.config.fetch,
        "fetcher": health.components.get("fetcher"),
        "fetch_counts": fetch_counts,
    }
    return render(request, "home.html", values)


def studies(request: Request) -> Response:
    """A page of the list of studies: all, or those in one stage."""
    stage, page = request.query_params.get("stage"), request.query_params.get("page", "0")
    if stage not in (None, *overview.STAGES) or not re.fullmatch("[0-9]{1,5}", page):
        raise HTTPException(404)
    with overview.open_read_only(context_of(request).data.database) as connection:
        lines = study_detail.studies(connection, stage, int(page))
        backlog = overview.backlog(connection)
    values = {
        "lines": lines[: study_detail.PAGE],
        "more": len(lines) > study_detail.PAGE,
        "page": int(page),
        "stage": stage,
    }
    return render(request, "studies.html", values | {"backlog": backlog})


def study(request: Request) -> Response:
    """One study: views, deliveries, jobs, timeline."""
    context = context_of(request)
    with overview.open_read_only(context.data.database) as connection:
        found = study_detail.study_detail(connection, request.path_params["pseudonym"])
        shares = _notice_shares(context, connection)
    if found is None:
        raise HTTPException(404)
    views = sorted((row for row in found.instances if row["view"]), key=_hanging_order)
    others = [row for row in found.instances if not row["view"]]
    summaries = {row["arrival"]: summary(context.data.root / row["folder"]) for row in views if row["folder"]}
    available_pictures = {row["arrival"]: _available_pictures(context, row) for row in views}
    values = {
        "detail": found,
        "views": views,
        "others": others,
        "scores": {arrival: found["scores"] for arrival, found in summaries.items() if found},
        "notices": {arrival: found.get("notices", []) for arrival, found in summaries.items()},
        "shares": shares,
        "exam": _exam([row for row in views if not row["rejected"]], summaries),
        "exam_title": TITLE,
        "available_pictures": available_pictures,
        "drawings": {
            row["arrival"]: view_drawing(known, seen_window(context.data.root / row["folder"]), title=row["view"])
            for row in views
            if (known := summaries.get(row["arrival"])) and available_pictures[row["arrival"]]
        },
    }
    return render(request, "study.html", values)


def _exam(views: Sequence[study_detail.Row], found: Mapping[int, Mapping[str, Any]]) -> ExamScores | None:
    """Exam-level scores of a study; None without scores."""
    images = [
        ViewScores(
            exam="",
            view=View(row["view"]),
            status="done" if (known := found.get(row["arrival"])) else _status(row),
            scores=known["scores"] if known else {},
            made_by=known.get("made_by", "") if known else "",
            patient=known.get("patient", {}) if known else {},
        )
        for row in views
    ]
    return score_exams(images)[0] if any(image.scores for image in images) else None


def _status(row: study_detail.Row) -> str:
    """Status of a view without a result."""
    return row["outcome"] or ("waiting" if row["state"] == "candidate" else "failed")


def _notice_shares(context: WebContext, connection: Connection) -> NoticeShares:
    folders = overview.latest_view_folders(connection, VIEWS)
    return notice_shares(context.data.root / folder for folder in folders)


def _available_pictures(context: WebContext, row: study_detail.Row) -> list[str]:
    """Pictures of an instance that exist; retention may have removed them."""
    if not row["folder"]:
        return []
    places = {"image": row["path"], "map": f"{row['folder']}/{PICTURE}"}
    return [name for name, path in places.items() if (context.data.root / path).exists()]


def _hanging_order(row: study_detail.Row) -> tuple[bool, bool, int]:
    """Sort key of views: CC above MLO, right before left, as mammograms are hung."""
    return "MLO" in row["view"], row["view"].startswith("L"), row["arrival"]


def failures(request: Request) -> Response:
    """Everything that needs a person."""
    with overview.open_read_only(context_of(request).data.database) as connection:
        found, codes = study_detail.failures(connection), overview.failures_by_code(connection)
    return render(request, "failures.html", {"failures": found, "codes": codes})


def image(request: Request) -> Response:
    """PNG of a view in grey."""
    root, files, pictures = context_of(request).data.root, _files(request), context_of(request).pictures
    return _png(lambda: pictures.image(root / files.instance, root / files.results))


def overlay(request: Request) -> Response:
    """PNG of a view with saliency and patches."""
    root, files, pictures = context_of(request).data.root, _files(request), context_of(request).pictures
    return _png(lambda: pictures.overlay(root / files.results))


def _files(request: Request) -> study_detail.ViewFiles:
    with overview.open_read_only(context_of(request).data.database) as connection:
        files = study_detail.view_files(connection, request.path_params["arrival"])
    if files is None:
        raise HTTPException(404)
    return files


def _png(make: Callable[[], bytes]) -> Response:
    try:
        return Response(make(), media_type="image/png")
    except GlamError as error:  # removed by retention
        raise HTTPException(404) from error


def _targets(
    context: WebContext, counts: list[TargetCounts], components: Mapping[str, Component]
) -> list[tuple[str, Target | None, TargetCounts, Component | None]]:
    """By name: configuration (None if no longer configured), counts of deliveries, and state."""
    known = {target.name: target for target in context.config.targets}
    by_name = {one.target: one for one in counts}
    nothing = {name: TargetCounts(target=name, pending=0, delivered=0, dead=0) for name in known}
    return [
        (name, known.get(name), one, components.get(f"target:{name}"))
        for name, one in sorted((nothing | by_name).items())
    ]


def _disk(context: WebContext) -> dict[str, int] | None:
    try:
        usage = shutil.disk_usage(context.data.root)
    except OSError:
        return None
    return {"total": usage.total, "free": usage.free, "reserve": context.config.receive.reserve_bytes}


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

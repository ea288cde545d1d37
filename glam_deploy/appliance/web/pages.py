"""The HTML pages. Each reads one snapshot of `state.db`; a study's UID appears on its own page only."""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from sqlite3 import Connection
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from glam_deploy.appliance.config import Notify, Target
from glam_deploy.appliance.data import PICTURE
from glam_deploy.appliance.state import fetches, overview, senders, study_detail
from glam_deploy.appliance.state.overview import Component, TargetCounts
from glam_deploy.appliance.web import monitoring
from glam_deploy.appliance.web.context import WebContext, context_of
from glam_deploy.appliance.web.notices import VIEWS, NoticeShares, notice_shares
from glam_deploy.appliance.web.render import latency, render, throughput
from glam_deploy.appliance.web.view_drawing import view_drawing
from glam_deploy.appliance.web.view_results import seen_window, summary
from glam_deploy.errors import GlamError
from glam_deploy.exams import TITLE, ViewScores, score_exams, triage
from glam_deploy.records import View

PLOTTED = 5000
"""Most jobs, and deliveries of a target, in a plot: a day's work of a busy site."""


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
    processes = monitoring.configured_processes(context.config)
    now, worker = context.now(), health.components.get("worker")
    values = {
        "now": now,
        "health": health,
        "backlog": backlog,
        "throughput": throughput(finished, now),
        "latency": latency(finished, delivered, now),
        "processes": [(name, health.components.get(name)) for name in processes],
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
    images, threshold = _view_scores(views, summaries), context.config.results.triage_threshold
    values = {
        "detail": found,
        "views": views,
        "others": others,
        "scores": {arrival: found["scores"] for arrival, found in summaries.items() if found},
        "notices": {arrival: found.get("notices", []) for arrival, found in summaries.items()},
        "shares": shares,
        "exam": score_exams(images)[0] if any(image.scores for image in images) else None,
        "triage": triage(images, threshold) if images and threshold is not None else None,
        "exam_title": TITLE,
        "available_pictures": available_pictures,
        "drawings": {
            row["arrival"]: view_drawing(known, seen_window(context.data.root / row["folder"]), title=row["view"])
            for row in views
            if (known := summaries.get(row["arrival"])) and available_pictures[row["arrival"]]
        },
    }
    return render(request, "study.html", values)


def _view_scores(views: Sequence[study_detail.Row], found: Mapping[int, Mapping[str, Any]]) -> list[ViewScores]:
    """The scores of a study's images that are not rejected."""
    return [
        ViewScores(
            exam="",
            view=View(row["view"]),
            status="done" if (known := found.get(row["arrival"])) else _status(row),
            scores=known["scores"] if known else {},
            made_by=known.get("made_by", "") if known else "",
            patient=known.get("patient", {}) if known else {},
        )
        for row in views
        if not row["rejected"]
    ]


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
) -> list[tuple[str, str, TargetCounts, Component | None]]:
    """Targets and entries of [[notify]] by name: protocol, counts of deliveries or notifications, and state."""
    known = {target.name: _protocol(target) for target in context.config.targets}
    known |= {entry.name: _notification_protocol(entry) for entry in context.config.notify}
    by_name = {one.target: one for one in counts}
    nothing = {name: TargetCounts(target=name, pending=0, delivered=0, dead=0) for name in known}
    return [
        (name, known.get(name, "no longer configured"), one, components.get(f"target:{name}"))
        for name, one in sorted((nothing | by_name).items())
    ]


def _protocol(target: Target) -> str:
    if target.folder:
        return "folder"
    return "STOW-RS" if target.stow_url else f"C-STORE{' over TLS' * bool(target.tls)}"


def _notification_protocol(entry: Notify) -> str:
    name = {"webhook": "webhook", "email": "e-mail", "hl7": "HL7 v2", "fhir": "FHIR"}[entry.kind]
    return f"notifications: {name}"


def _disk(context: WebContext) -> dict[str, int] | None:
    try:
        usage = shutil.disk_usage(context.data.root)
    except OSError:
        return None
    return {"total": usage.total, "free": usage.free, "reserve": context.config.receive.reserve_bytes}

"""The pages. Each reads one moment of `state.db`; a study is called by its pseudonym but on its own page."""

import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from glam_deploy.appliance.config import Target
from glam_deploy.appliance.data import PICTURE
from glam_deploy.appliance.state import overview, story
from glam_deploy.appliance.state.overview import Component, TargetCounts
from glam_deploy.appliance.web import health, plots
from glam_deploy.appliance.web.pictures import scores
from glam_deploy.appliance.web.render import render
from glam_deploy.appliance.web.site import Site, site_of
from glam_deploy.errors import GlamError

PLOTTED = 5000
"""Jobs, and parcels of a target, that a plot looks at: a day's work of a busy site."""


def home(request: Request) -> Response:
    """The queue by state, how fast it moves, and how the processes, targets and disk are."""
    site = site_of(request)
    how = health.check(site)
    with overview.reading(site.data.database) as connection:
        backlog = {one.stage: one for one in overview.backlog(connection)}
        counts = overview.targets(connection)
        finished = overview.latest_finished(connection, PLOTTED)
        delivered = overview.latest_delivered(connection, PLOTTED)
    now = site.now()
    values = {
        "now": now,
        "health": how,
        "backlog": backlog,
        "throughput": plots.throughput(finished, now),
        "latency": plots.latency(finished, delivered, now),
        "processes": [(name, how.components.get(name)) for name in health.PROCESSES],
        "word": health.word,
        "targets": _targets(site, counts, how.components),
        "worker": _facts(how.components.get("worker")),
        "disk": _disk(site),
    }
    return render(request, "home.html", values)


def studies(request: Request) -> Response:
    """A page of the queue: all studies, or those in one stage."""
    stage, page = request.query_params.get("stage"), request.query_params.get("page", "0")
    if stage not in (None, *overview.STAGES) or not re.fullmatch("[0-9]{1,5}", page):
        raise HTTPException(404)
    with overview.reading(site_of(request).data.database) as connection:
        lines = story.studies(connection, stage, int(page))
        backlog = overview.backlog(connection)
    values = {"lines": lines[: story.PAGE], "more": len(lines) > story.PAGE, "page": int(page), "stage": stage}
    return render(request, "studies.html", values | {"backlog": backlog})


def study(request: Request) -> Response:
    """One study from its first instance to its last delivery."""
    site = site_of(request)
    with overview.reading(site.data.database) as connection:
        found = story.story(connection, request.path_params["pseudonym"])
    if found is None:
        raise HTTPException(404)
    views = sorted((row for row in found.instances if row["view"]), key=_hanging)
    others = [row for row in found.instances if not row["view"]]
    found_scores = {row["arrival"]: scores(site.data.root / row["folder"]) for row in views if row["folder"]}
    there = {row["arrival"]: _there(site, row) for row in views}
    values = {"story": found, "views": views, "others": others, "scores": found_scores, "there": there}
    return render(request, "study.html", values)


def _there(site: Site, row: story.Row) -> list[str]:
    """Which pictures of an instance there are; retention takes those away whose time has come."""
    if not row["folder"]:
        return []
    places = {"image": row["path"], "map": f"{row['folder']}/{PICTURE}"}
    return [name for name, path in places.items() if (site.data.root / path).exists()]


def _hanging(row: story.Row) -> tuple[bool, bool, int]:
    """CC above MLO, right before left, as images of the breast hang."""
    return "MLO" in row["view"], row["view"].startswith("L"), row["arrival"]


def failures(request: Request) -> Response:
    """What needs a person."""
    with overview.reading(site_of(request).data.database) as connection:
        found, codes = story.failures(connection), overview.failures_by_code(connection)
    return render(request, "failures.html", {"failures": found, "codes": codes})


def image(request: Request) -> Response:
    """A view in grey."""
    root, files, pictures = site_of(request).data.root, _files(request), site_of(request).pictures
    return _png(lambda: pictures.image(root / files.instance, root / files.results))


def overlay(request: Request) -> Response:
    """The same with saliency and patches."""
    root, files, pictures = site_of(request).data.root, _files(request), site_of(request).pictures
    return _png(lambda: pictures.overlay(root / files.results))


def _files(request: Request) -> story.ViewFiles:
    with overview.reading(site_of(request).data.database) as connection:
        files = story.view_files(connection, request.path_params["arrival"])
    if files is None:
        raise HTTPException(404)
    return files


def _png(make: Callable[[], bytes]) -> Response:
    try:
        return Response(make(), media_type="image/png")
    except GlamError as error:  # the retention cleaner has been here
        raise HTTPException(404) from error


def _targets(
    site: Site, counts: list[TargetCounts], components: Mapping[str, Component]
) -> list[tuple[str, Target | None, TargetCounts, Component | None]]:
    """By name: as configured (None for one that is no more), what it got and what waits, and its breaker."""
    known = {target.name: target for target in site.config.targets}
    by_name = {one.target: one for one in counts}
    nothing = {name: TargetCounts(target=name, pending=0, delivered=0, dead=0) for name in known}
    return [
        (name, known.get(name), one, components.get(f"target:{name}"))
        for name, one in sorted((nothing | by_name).items())
    ]


def _facts(worker: Component | None) -> dict[str, Any]:
    """What the worker says of itself: engine, gate, bundle, ..."""
    return {} if worker is None else dict(worker.detail)


def _disk(site: Site) -> dict[str, int] | None:
    try:
        usage = shutil.disk_usage(site.data.root)
    except OSError:
        return None
    return {"total": usage.total, "free": usage.free, "reserve": site.config.receive.reserve_bytes}

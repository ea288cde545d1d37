"""/health/live and /health/ready: whether the appliance takes in, works and sends, and if not, why.

Both are open to whoever reaches the port, and then say yes or no alone; reasons and components are for visitors.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse

from glam_deploy.appliance.state import overview
from glam_deploy.appliance.state.events import SILENT_S
from glam_deploy.appliance.state.overview import Component
from glam_deploy.appliance.web.access import visitor_of
from glam_deploy.appliance.web.site import Site, site_of
from glam_deploy.errors import UsageError

PROCESSES = ("receiver", "keeper", "worker", "dispatcher", "web")
"""That must be there; the last one's beat proves that this process can write to the database."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """How the appliance is."""

    reasons: tuple[str, ...]
    """Why it is not ready; empty where it is."""
    components: Mapping[str, Component]
    free_bytes: int | None
    """On the data folder's disk; None where that cannot be told."""

    @property
    def ready(self) -> bool:
        return not self.reasons


def live(request: Request) -> JSONResponse:
    """This process answers."""
    return JSONResponse({"live": True})


def ready(request: Request) -> JSONResponse:
    """200 or 503."""
    health = check(site_of(request))
    answer: dict[str, object] = {"ready": health.ready}
    if visitor_of(request):
        components = {
            name: {"state": one.state, "beat_age_s": round(one.age, 1)} for name, one in health.components.items()
        }
        answer |= {"reasons": health.reasons, "components": components, "disk_free_bytes": health.free_bytes}
    return JSONResponse(answer, 200 if health.ready else 503)


def check(site: Site) -> Health:
    """The health now."""
    free = free_bytes(site.data.root)
    try:
        with overview.reading(site.data.database) as connection:
            components = overview.components(connection, site.steady())
    except (*overview.UNREADABLE, UsageError) as error:
        told = (f"the database cannot be read ({type(error).__name__})",)
        return Health(reasons=told, components={}, free_bytes=free)
    reasons = (*_of_processes(components), *_of_disk(free, site.config.receive.reserve_bytes))
    return Health(reasons=reasons, components=components, free_bytes=free)


def free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def targets(health: Health) -> list[tuple[str, Component]]:
    """By name, those that the dispatcher has spoken of."""
    names = {name.partition(":")[2]: one for name, one in health.components.items() if name.startswith("target:")}
    return sorted(names.items())


def word(component: Component | None) -> str:
    """One word for a process: what it said last, unless it has said nothing lately."""
    if component is None:
        return "missing"
    return "silent" if component.age > SILENT_S else component.state


def _of_processes(components: Mapping[str, Component]) -> Iterator[str]:
    for name in PROCESSES:
        component = components.get(name)
        if component is None:
            yield f"the {name} has never started"
        elif component.age > SILENT_S:
            yield f"the {name} has said nothing for {component.age:.0f} s"
        elif component.state != "ready":
            yield f"the {name} is {component.state}"


def _of_disk(free: int | None, reserve: int) -> Iterator[str]:
    if free is None:
        yield "the data folder's disk cannot be asked"
    elif free < reserve:
        yield f"the disk has {free} bytes free, under the reserve of {reserve}: instances are refused"

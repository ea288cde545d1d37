"""What every answer is made from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from anyio import CapacityLimiter
from starlette.requests import Request

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.ingest import Ingest
from glam_deploy.appliance.web.access import Access
from glam_deploy.appliance.web.pictures import Pictures


@dataclass(frozen=True, kw_only=True)
class Site:
    """One appliance, as its HTTP side sees it."""

    config: Config
    data: DataFolder
    audit: Audit
    access: Access
    pictures: Pictures
    ingest: Ingest
    uploads: CapacityLimiter
    """Threads that take instances in over STOW-RS, apart from those that answer pages."""
    hosts: frozenset[str]
    """Names by which it may be called, in lower case, without port."""
    now: Callable[[], float]
    """Wall clock, seconds since 1970."""
    steady: Callable[[], float]
    """Steady time, by which processes beat (state/steady.py)."""


def site_of(request: Request) -> Site:
    """The site that this request is for."""
    return cast(Site, request.app.state.site)

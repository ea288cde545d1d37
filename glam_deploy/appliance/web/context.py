"""What the handlers of requests share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from anyio import CapacityLimiter
from starlette.requests import Request

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.receive.ingest import Ingest
from glam_deploy.appliance.web.access import Access
from glam_deploy.appliance.web.pictures import Pictures


@dataclass(frozen=True, kw_only=True)
class WebContext:
    """The appliance, as handlers of requests use it."""

    config: Config
    data: DataFolder
    audit: Audit
    access: Access
    pictures: Pictures
    ingest: Ingest
    uploads: CapacityLimiter
    """Threads for STOW-RS, apart from those that answer pages."""
    hosts: frozenset[str]
    """Accepted host names, in lower case, without port."""
    now: Callable[[], float]
    """Wall clock, seconds since 1970."""
    monotonic: Callable[[], float]
    """Monotonic time of the appliance, used by heartbeats (state/database.py)."""


def context_of(request: Request) -> WebContext:
    """The context of a request."""
    return cast(WebContext, request.app.state.context)

"""What the handlers of requests share, and what they ask about a request."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from anyio import CapacityLimiter
from starlette.requests import Request

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.ingest import Ingest
from glam_deploy.appliance.web.access import Access, Refused, Visitor
from glam_deploy.appliance.web.attempts import Attempts
from glam_deploy.appliance.web.forwarding import Forwarding
from glam_deploy.appliance.web.oidc import Provider
from glam_deploy.appliance.web.pictures import Pictures
from glam_deploy.appliance.web.sessions import is_same_secret

VISITOR = "glam.visitor"
"""Key of the `Visitor` in a request's scope, set by the guard."""


@dataclass(frozen=True, kw_only=True)
class WebContext:
    """The appliance, as handlers of requests use it."""

    config: Config
    data: DataFolder
    audit: Audit
    access: Access
    forwarding: Forwarding
    provider: Provider | None
    """None where no login at a provider is configured."""
    attempts: Attempts
    pictures: Pictures
    ingest: Ingest
    uploads: CapacityLimiter
    """Threads for STOW-RS, apart from those that answer pages."""
    logins: CapacityLimiter
    """Threads that wait for the OpenID Connect provider."""
    now: Callable[[], float]
    """Wall clock, seconds since 1970."""
    monotonic: Callable[[], float]
    """Monotonic time of the appliance, used by heartbeats (state/database.py)."""


def context_of(request: Request) -> WebContext:
    """The context of a request."""
    return cast(WebContext, request.app.state.context)


def visitor_of(request: Request) -> Visitor | None:
    """The authenticated client of a request; None on the few open routes without credentials."""
    return cast(Visitor | None, request.scope.get(VISITOR))


def operator_of(request: Request) -> Visitor:
    """The authenticated client of a request that only operators may send. Raises Refused for others."""
    visitor = visitor_of(request)
    if visitor is None or visitor.user.role != "operator":
        raise Refused(403, "not_operator", "This needs the role operator: you may look, but change nothing.")
    return visitor


def client_address(request: Request) -> str:
    """Address of the client, as in the audit log; behind a trusted proxy that of the proxy's client."""
    return request.client.host if request.client else "unknown"


def form_token_matches(given: str, visitor: Visitor) -> bool:
    """Whether a form came from one of this client's own pages."""
    return visitor.form_token is None or is_same_secret(given, visitor.form_token)

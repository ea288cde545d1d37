"""Tables of the web server: status page, health, metrics and STOW-RS, and who may use them."""

import re
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator

from glam_deploy.appliance.config.listeners import KeyPair
from glam_deploy.appliance.config.section import LOOPBACK, File, HostNetwork, Port, Section

OWN_PATHS = (
    *("study", "studies", "failures", "find", "views", "jobs", "parcels", "notifications"),
    *("health", "metrics", "dicom-web", "login", "logout", "static"),
)
"""First parts of the paths of the web server, with which `public_url` must not begin its own path."""
_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
Claim = Annotated[str, Field(min_length=1)]


class WebTls(KeyPair):
    """Certificate of the web server."""

    authority: File | None = None
    """PEM file of the authority that must have signed the certificates of clients; None: clients present none."""


class Oidc(Section):
    """Login at an OpenID Connect provider."""

    issuer: str
    """Issuer identifier, exactly as the provider writes it; discovery is at /.well-known/openid-configuration below."""
    client_id: Annotated[str, Field(min_length=1)]
    client_secret_file: File | None = None
    """File with the secret of a confidential client; None: a public client, protected by PKCE alone."""
    scopes: tuple[Claim, ...] = ("openid", "profile")
    roles_claim: Claim = "roles"
    """Claim with the user's groups: its name, or a path with dots (realm_access.roles)."""
    viewer: tuple[Claim, ...] = ()
    """Values of `roles_claim` that let a user see the pages."""
    operator: tuple[Claim, ...] = ()
    """Values of `roles_claim` that let a user also retry, and accept corrections."""
    name_claim: Claim = "preferred_username"
    """Claim with the name that pages and audit log show."""
    authority: File | None = None
    """PEM file of the authority of the provider's certificate; None: those that this machine trusts."""
    clock_skew_s: Annotated[float, Field(ge=0, le=300)] = 60
    """Tolerated difference between the clocks of provider and appliance."""

    @field_validator("issuer")
    @classmethod
    def _is_issuer(cls, issuer: str) -> str:
        address = _http_address(issuer)
        if address is None or not _is_confidential(address):
            raise ValueError(
                "expected the https:// URL of the issuer, without query; http:// is for a provider on this machine only"
            )
        return issuer

    @model_validator(mode="after")
    def _somebody_gets_in(self) -> "Oidc":
        if "openid" not in self.scopes:
            raise ValueError(f"scopes are {', '.join(self.scopes) or 'none'}: expected openid among them")
        if not (self.viewer or self.operator):
            raise ValueError("nobody could log in: expected values of roles_claim in viewer, operator, or both")
        return self


class Web(Section):
    """The status page, health, metrics and STOW-RS."""

    host: str = "127.0.0.1"
    port: Port = 8042
    token_file: File | None = None
    """File with the bearer token, 32 characters or more. Required unless `oidc` or client certificates are."""
    tls: WebTls | None = None
    stow: bool = False
    """Accept instances over STOW-RS (PS3.18 section 10.5) at /dicom-web/studies."""
    public_url: str | None = None
    """URL under which browsers reach the pages, without a slash at its end; None: the own address."""
    trusted_proxies: tuple[HostNetwork, ...] = ()
    """Addresses or networks of reverse proxies whose forwarded headers are believed."""
    forwarded: Literal["x-forwarded", "forwarded"] = "x-forwarded"
    """The headers of these proxies: X-Forwarded-For, -Proto and -Host, or Forwarded (RFC 7239). The others are ignored,
    because a proxy passes on those that it does not set.
    """
    session_s: Annotated[float, Field(gt=0)] = 43200
    """A browser session ends this long after the login."""
    session_idle_s: Annotated[float, Field(gt=0)] = 3600
    """A browser session ends this long after its last request."""
    oidc: Oidc | None = None

    @field_validator("public_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        return None if url is None else _normalized(url)

    @model_validator(mode="after")
    def _in_order(self) -> "Web":
        if self.trusted_proxies and self.public_url is None:
            raise ValueError("trusted_proxies go with public_url: set the URL under which browsers reach the proxy")
        if self.oidc and self.public_url is None:
            raise ValueError("oidc goes with public_url, which is the start of the redirect URI: set it")
        return self

    @property
    def prefix(self) -> str:
        """Path of `public_url`, in front of the paths of all pages: "" or "/glam"."""
        return urlsplit(self.public_url).path if self.public_url else ""

    @property
    def public_origin(self) -> str | None:
        """Scheme, host and port of `public_url`, as in the header Origin (RFC 6454)."""
        return self.public_url and self.public_url.removesuffix(self.prefix)

    @property
    def redirect_uri(self) -> str:
        """Where the login provider sends browsers after a login; to register there."""
        return f"{self.public_url}/login/callback"

    @property
    def after_logout_uri(self) -> str:
        """Where the login provider sends browsers after a logout; to register there."""
        return f"{self.public_url}/login"

    @property
    def public_is_confidential(self) -> bool:
        """Whether `public_url` is https, or on this machine."""
        return self.public_url is None or _is_confidential(urlsplit(self.public_url))


def _http_address(url: str) -> SplitResult | None:
    """The parts of an http or https URL without user, query and fragment; None for others."""
    try:
        address = urlsplit(url)
        port = address.port
    except ValueError:
        return None
    plain = url.isascii() and url.isprintable() and not any(each in url for each in " ?#@")
    return address if plain and address.scheme in _DEFAULT_PORTS and address.hostname and port != 0 else None


def _is_confidential(address: SplitResult) -> bool:
    return address.scheme == "https" or address.hostname in LOOPBACK


def _normalized(url: str) -> str:
    """The URL as browsers write its origin, without a slash at its end. Raises ValueError."""
    address = _http_address(url)
    path = address.path.rstrip("/") if address else ""
    if address is None or not _PREFIX.fullmatch(path):
        raise ValueError("expected the URL in the browser, as https://pacs.example/glam: scheme, host and path only")
    if path.split("/")[1:2] and path.split("/")[1] in OWN_PATHS:
        raise ValueError(f"its path begins with /{path.split('/')[1]}, a page of the appliance: use another one")
    host = f"[{address.hostname}]" if ":" in str(address.hostname) else address.hostname
    port = "" if address.port in (None, _DEFAULT_PORTS[address.scheme]) else f":{address.port}"
    return f"{address.scheme}://{host}{port}{path}"

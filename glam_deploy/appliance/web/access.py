"""Access control: the token, browser sessions, the limit on wrong tokens, and the rules for the section `web`."""

import hashlib
import hmac
import ipaddress
import secrets
import stat
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from anyio import CapacityLimiter
from cryptography import x509
from starlette.requests import Request

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.config import Config, Web
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.ingest import Ingest
from glam_deploy.appliance.web.pictures import Pictures
from glam_deploy.errors import UsageError
from glam_deploy.installation import quoted

SHORTEST_TOKEN = 32
SESSION_SECONDS = 12 * 3600.0
"""A working day; then the browser must send the token again."""
MOST_SESSIONS = 1000
WRONG_TOKENS = 10
"""Wrong tokens of one address in `WRONG_SECONDS` after which further wrong ones get status 429.

The right token is always accepted: behind a reverse proxy all clients have one address, and a token of `SHORTEST_TOKEN`
characters cannot be guessed at any rate.
"""
WRONG_SECONDS = 60.0
MOST_ADDRESSES = 10_000

COOKIE = "glam-session"
VISITOR = "glam.visitor"
"""Key of the `Visitor` in a request's scope, set by the guard."""

Clock = Callable[[], float]


class Refused(Exception):
    """A request that is refused. `code` is for the audit log, `message` for the client; neither names a study."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """An authenticated client."""

    credential: str
    """"session", "token" or "certificate"."""
    form_token: str | None
    """CSRF token of the forms on this client's pages; None for a bearer token, which no foreign page can send."""


def read_token(path: Path) -> str:
    """The token in a file: printable ASCII without spaces, 32 characters or more; surrounding white space is ignored.

    Raises UsageError if it is shorter or cannot be read, or if the file's mode lets users other than its owner and
    group read it, or others than its owner write it.
    """
    try:
        mode, token = path.stat().st_mode, path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise UsageError(f"the token file {path} cannot be read ({reason})") from error
    if stat.S_IMODE(mode) & 0o027:
        raise UsageError(
            f"the token file {path} has mode {stat.S_IMODE(mode):04o}, expected no access for others and no write "
            f"access for the group: chmod 0600 {quoted(path)}"
        )
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise UsageError(
            f"the token in {path} has {len(token)} characters, expected {SHORTEST_TOKEN} or more, printable and "
            f"without spaces: openssl rand -hex 32 > {quoted(path)}"
        )
    return token


@dataclass
class Sessions:
    """Browser sessions that have not expired; kept in memory, so that a restart ends them."""

    clock: Clock
    _until: OrderedDict[str, tuple[float, str]] = field(default_factory=OrderedDict)

    def open(self) -> str:
        """Open a session; its secret, which is the cookie."""
        secret = secrets.token_urlsafe(32)
        self._until[secret] = (self.clock() + SESSION_SECONDS, secrets.token_urlsafe(32))
        while len(self._until) > MOST_SESSIONS:
            self._until.popitem(last=False)
        return secret

    def form_token(self, secret: str) -> str | None:
        """CSRF token of the session with this cookie; None if there is none or it has expired."""
        # a lookup by hash, so that its time does not reveal how much of a guess was right
        until, form_token = self._until.get(secret, (0.0, ""))
        if self.clock() >= until:
            self._until.pop(secret, None)
            return None
        return form_token

    def close(self, secret: str) -> None:
        self._until.pop(secret, None)


@dataclass
class WrongTokens:
    """Times of wrong tokens by address."""

    clock: Clock
    _times: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    def record(self, address: str) -> None:
        """Record a wrong token. Raises Refused if `address` has sent too many."""
        times = self._recent(address)
        if len(times) >= WRONG_TOKENS:
            wait = int(times[0] + WRONG_SECONDS - self.clock()) + 1
            raise Refused(
                429,
                "too_many_wrong_tokens",
                f"Wrong token. This address sent {WRONG_TOKENS} wrong tokens within {WRONG_SECONDS:.0f} s: send the "
                f"right one, or wait {wait} s.",
                retry_after=wait,
            )
        self._times[address] = [*times, self.clock()]
        self._times.move_to_end(address)
        while len(self._times) > MOST_ADDRESSES:
            self._times.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        now = self.clock()
        return [at for at in self._times.get(address, []) if now - at < WRONG_SECONDS]


class Access:
    """Access by token, if one is configured. Without one every connection must have shown a certificate (`server`)."""

    def __init__(self, token: str | None, *, clock: Clock = time.monotonic) -> None:
        self._token = None if token is None else _hash(token)
        self._shared_form_token = secrets.token_urlsafe(32)
        self.sessions = Sessions(clock)
        self.wrong = WrongTokens(clock)

    @property
    def requires_token(self) -> bool:
        """Whether a token is configured."""
        return self._token is not None

    def check_token(self, given: str, address: str) -> None:
        """Raises Refused for a wrong token; the right one is accepted whatever else came from `address`."""
        if self._token is not None and hmac.compare_digest(_hash(given), self._token):
            return
        self.wrong.record(address)
        raise Refused(401, "wrong_token", "Wrong token.")

    def visitor(self, *, authorization: str | None, cookie: str | None, address: str) -> Visitor:
        """The client that these headers authenticate. Raises Refused."""
        if not self.requires_token:
            return Visitor(credential="certificate", form_token=self._shared_form_token)
        if authorization is not None:
            scheme, _, given = authorization.partition(" ")
            # counted apart from the login form: a scraper with an old token must not block it
            self.check_token(given.strip() if scheme.lower() == "bearer" else "", f"bearer {address}")
            return Visitor(credential="token", form_token=None)
        form_token = self.sessions.form_token(cookie) if cookie else None
        if form_token is None:
            raise Refused(401, "no_token", "A token is needed: send it as a bearer token, or log in.")
        return Visitor(credential="session", form_token=form_token)


def visitor_of(request: Request) -> Visitor | None:
    """The authenticated client of a request; None on the few open routes without credentials."""
    return cast(Visitor | None, request.scope.get(VISITOR))


def client_address(request: Request) -> str:
    """Address of the client, as in the audit log."""
    return request.client.host if request.client else "unknown"


def form_token_matches(given: str, visitor: Visitor) -> bool:
    """Whether a form came from one of this client's own pages."""
    return visitor.form_token is None or hmac.compare_digest(_hash(given), _hash(visitor.form_token))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def check_web(web: Web, *, missing_ok: bool = False) -> None:
    """Raises UsageError as `check_exposure`, and for a token file or a certificate that cannot be used.

    `missing_ok`: a file that does not exist is not an error.
    """
    check_exposure(web)
    if web.token_file is not None and not (missing_ok and not web.token_file.exists()):
        read_token(web.token_file)
    if web.tls is not None and not (missing_ok and not web.tls.certificate.exists()):
        certificate_names(web.tls.certificate)


def check_exposure(web: Web) -> None:
    """Raises UsageError for a section that would give access without authentication; reads no file."""
    if web.tls is None and not _is_loopback(web.host):
        raise UsageError(
            f"web.host is {web.host}, which other machines can reach: set web.tls, or use loopback (127.0.0.1, ::1)"
        )
    if web.tls is None and web.token_file is None:
        raise UsageError(
            "web has neither token_file nor tls, so every user of this machine could see the studies: set a token file "
            "(openssl rand -hex 32 > web.token; chmod 0600 web.token), or certificates"
        )


def certificate_names(certificate: Path) -> set[str]:
    """Subject alternative names of a certificate, in lower case. Raises UsageError."""
    try:
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise UsageError(
            f"web.tls.certificate {certificate} is not a PEM certificate with subject alternative names "
            f"({type(error).__name__}): make one that has the host name used in the browser"
        ) from error
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return addresses | {name.lower() for name in names.get_values_for_type(x509.DNSName)}


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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

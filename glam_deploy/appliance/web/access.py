"""Access control: the token, the limit on wrong tokens, who a client is, and the rules for the section `web`."""

import secrets
import stat
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography import x509

from glam_deploy.addresses import parsed_address
from glam_deploy.appliance.config import Web
from glam_deploy.appliance.web.sessions import Clock, Sessions, User, is_same_secret, shown_name
from glam_deploy.errors import UsageError
from glam_deploy.installation import quoted
from glam_deploy.regular import SMALL_FILE, read_regular

SHORTEST_TOKEN = 32
WRONG_TOKENS = 10
"""Wrong tokens of one address in `WRONG_SECONDS` after which further wrong ones get status 429.

The right token is always accepted: behind a reverse proxy all clients have one address, and a token of `SHORTEST_TOKEN`
characters cannot be guessed at any rate.
"""
WRONG_SECONDS = 60.0
MOST_ADDRESSES = 10_000

TOKEN_USER = User(name="token", role="operator")
"""Everybody who has the token."""


class Refused(Exception):
    """A request that is refused. `code` is for the audit log, `message` for the client; neither names a study."""

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: int | None = None, by: str | None = None
    ) -> None:
        """`by`: name of the user, where it is known before there is a session."""
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after, self.by = status, code, message, retry_after, by


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """An authenticated client."""

    credential: Literal["session", "token", "certificate"]
    user: User
    form_token: str | None
    """CSRF token of the forms on this client's pages; None for a bearer token, which no foreign page can send."""


def read_token(path: Path) -> str:
    """The token in a file: printable ASCII without spaces, 32 characters or more; surrounding white space is ignored.

    Raises UsageError if it is shorter or cannot be read, or if the file's mode lets users other than its owner and
    group read it, or others than its owner write it.
    """
    token = _read_secret(path, "token file")
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise UsageError(
            f"the token in {path} has {len(token)} characters, expected {SHORTEST_TOKEN} or more, printable and "
            f"without spaces, such as from: openssl rand -hex 32"
        )
    return token


def read_client_secret(path: Path) -> str:
    """The client secret in a file, as `read_token` except for its length. Raises UsageError."""
    secret = _read_secret(path, "client secret file")
    if not secret or not secret.isprintable():
        raise UsageError(f"the client secret file {path} holds no secret in one line: copy it from the provider")
    return secret


def secret_states(web: Web) -> dict[str, list[int]]:
    """Key -> inode and time of the last change (in ns) of the file with this secret; it is read at the start only."""
    files = {"web.token_file": web.token_file, "web.oidc.client_secret_file": web.oidc and web.oidc.client_secret_file}
    return {key: _file_state(path) for key, path in files.items() if path}


def _file_state(path: Path) -> list[int]:
    try:
        facts = path.stat()
    except OSError:
        return []
    return [facts.st_ino, facts.st_mtime_ns]


def _read_secret(path: Path, what: str) -> str:
    try:
        mode, secret = path.stat().st_mode, read_regular(path, SMALL_FILE).decode("ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise UsageError(f"the {what} {path} cannot be read ({reason})") from error
    if stat.S_IMODE(mode) & 0o027:
        raise UsageError(
            f"the {what} {path} has mode {stat.S_IMODE(mode):04o}, expected no access for others and no write "
            f"access for the group: chmod 0600 {quoted(path)}"
        )
    return secret


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
    """Access by token and by browser session; without either every connection has shown a certificate (`server`)."""

    def __init__(
        self, token: str | None, sessions: Sessions, *, oidc: bool = False, clock: Clock = time.monotonic
    ) -> None:
        """`oidc`: users log in at a provider."""
        self._token = token
        self._oidc = oidc
        self._shared_form_token = secrets.token_urlsafe(32)
        self.sessions = sessions
        self.wrong = WrongTokens(clock)

    @property
    def has_token(self) -> bool:
        """Whether a token is configured."""
        return self._token is not None

    @property
    def requires_login(self) -> bool:
        """Whether clients need more than a connection."""
        return self.has_token or self._oidc

    def check_token(self, given: str, address: str) -> None:
        """Raises Refused for a wrong token; the right one is accepted whatever else came from `address`."""
        if self._token is not None and is_same_secret(given, self._token):
            return
        self.wrong.record(address)
        raise Refused(401, "wrong_token", "Wrong token.")

    def visitor(
        self, *, authorization: str | None, cookie: str | None, address: str, certificate: str | None = None
    ) -> Visitor:
        """The client that these headers authenticate. Raises Refused.

        `certificate`: subject of the client's certificate, which names it if nothing else is required.
        """
        if not self.requires_login:
            user = User(name=shown_name(certificate or "certificate"), role="operator")
            return Visitor(credential="certificate", user=user, form_token=self._shared_form_token)
        if authorization is not None:
            scheme, _, given = authorization.partition(" ")
            # counted apart from the login form: a scraper with an old token must not block it
            self.check_token(given.strip() if scheme.lower() == "bearer" else "", f"bearer {address}")
            return Visitor(credential="token", user=TOKEN_USER, form_token=None)
        session = self.sessions.use(cookie) if cookie else None
        if session is None:
            raise Refused(401, "no_token", "A token is needed: send it as a bearer token, or log in.")
        return Visitor(credential="session", user=session.user, form_token=session.form_token)


def check_web(web: Web, *, missing_ok: bool = False) -> None:
    """Raises UsageError as `check_exposure`, and for a token file or a certificate that cannot be used.

    `missing_ok`: a file that does not exist is not an error.
    """
    check_exposure(web)
    if web.token_file is not None and not (missing_ok and not web.token_file.exists()):
        read_token(web.token_file)
    secret = web.oidc.client_secret_file if web.oidc else None
    if secret is not None and not (missing_ok and not secret.exists()):
        read_client_secret(secret)
    if web.tls is not None and not (missing_ok and not web.tls.certificate.exists()):
        certificate_names(web.tls.certificate)


def check_exposure(web: Web) -> None:
    """Raises UsageError for a section that would give access without authentication, or send a secret without
    encryption; reads no file.
    """
    if web.tls is None and not _is_loopback(web.host):
        raise UsageError(
            f"web.host is {web.host}, which other machines can reach: set web.tls, or use loopback (127.0.0.1, ::1)"
        )
    if web.token_file is None and web.oidc is None and (web.tls is None or web.tls.authority is None):
        raise UsageError(
            "web has neither token_file nor oidc nor tls with an authority, so everybody who reaches its port could "
            "see the studies: set a token file (openssl rand -hex 32 > web.token; chmod 0600 web.token), web.oidc or "
            "web.tls.authority"
        )
    if web.trusted_proxies and web.token_file is None and web.oidc is None:
        raise UsageError(
            "web has trusted_proxies, but neither token_file nor oidc: behind a proxy every client has the proxy's "
            "certificate, so everybody could see the studies. Set a token file or web.oidc"
        )
    if not web.public_is_confidential:
        raise UsageError(
            f"web.public_url is {web.public_url}, with which tokens and studies would cross the network in clear: "
            "let the proxy serve https, and set its https:// URL"
        )


def certificate_names(certificate: Path) -> set[str]:
    """Subject alternative names of a certificate, in lower case. Raises UsageError."""
    try:
        parsed = x509.load_pem_x509_certificate(read_regular(certificate, SMALL_FILE))
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
        return host == "localhost" or parsed_address(host).is_loopback
    except ValueError:
        return False

"""Who may come in: the token, the sessions of those who typed it, and the limit on wrong ones."""

import hashlib
import hmac
import secrets
import stat
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from starlette.requests import Request

from glam_deploy.errors import UsageError
from glam_deploy.shell import quoted

SHORTEST_TOKEN = 32
SESSION_SECONDS = 12 * 3600.0
"""A working day; then the token is asked for again."""
MOST_SESSIONS = 1000
WRONG_TOKENS = 10
"""In `WRONG_SECONDS` from one address; further wrong ones are answered with 429. The right token always lets in: behind
a reverse proxy all visitors have one address, and no rate is enough to guess a token of `SHORTEST_TOKEN` characters."""
WRONG_SECONDS = 60.0
MOST_ADDRESSES = 10_000

VISITOR = "glam.visitor"
"""Where the guard leaves the `Visitor` in a request's scope."""

Clock = Callable[[], float]


class Refused(Exception):
    """A request that is turned away. `code` goes into the audit, `message` to whoever asked; neither names a study."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who was let in, and how."""

    way: str
    """"session", "token" or "certificate"."""
    form_token: str | None
    """What forms of this visitor's pages carry; None for programs, which no foreign page can make send their token."""


def read_token(path: Path) -> str:
    """The token in a file: printable ASCII without spaces, 32 characters or more, surrounding white space aside.

    Raises UsageError where it is shorter, cannot be read, or where others than its owner and group could read it, or
    others than its owner change it.
    """
    try:
        mode, token = path.stat().st_mode, path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
        raise UsageError(f"the token file {path} cannot be read ({reason})") from error
    if stat.S_IMODE(mode) & 0o027:
        raise UsageError(
            f"the token file {path} has mode {stat.S_IMODE(mode):04o}, expected nothing for others and no writing for "
            f"the group: chmod 0600 {quoted(path)}"
        )
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise UsageError(
            f"the token in {path} has {len(token)} characters, expected {SHORTEST_TOKEN} or more, printable and "
            f"without spaces: openssl rand -hex 32 > {quoted(path)}"
        )
    return token


@dataclass
class Sessions:
    """Browsers that are let in until their time is over; they live in this process, so a restart asks again."""

    clock: Clock
    _until: OrderedDict[str, tuple[float, str]] = field(default_factory=OrderedDict)

    def open(self) -> str:
        """The secret of a new session: its cookie."""
        secret = secrets.token_urlsafe(32)
        self._until[secret] = (self.clock() + SESSION_SECONDS, secrets.token_urlsafe(32))
        while len(self._until) > MOST_SESSIONS:
            self._until.popitem(last=False)
        return secret

    def form_token(self, secret: str) -> str | None:
        """Of the session with this cookie; None where there is none, or no longer."""
        # found by its hash in a dict, so that no time tells how much of a guess was right
        until, form_token = self._until.get(secret, (0.0, ""))
        if self.clock() >= until:
            self._until.pop(secret, None)
            return None
        return form_token

    def close(self, secret: str) -> None:
        self._until.pop(secret, None)


@dataclass
class WrongTokens:
    """When which address gave a wrong token."""

    clock: Clock
    _times: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    def note(self, address: str) -> None:
        """Note one more. Raises Refused where `address` gave too many."""
        times = self._recent(address)
        if len(times) >= WRONG_TOKENS:
            wait = int(times[0] + WRONG_SECONDS - self.clock()) + 1
            raise Refused(
                429,
                "too_many_wrong_tokens",
                f"This is not the token, and {WRONG_TOKENS} wrong ones came from this address in {WRONG_SECONDS:.0f} "
                f"s: wait {wait} s before you send another one, or send the right one.",
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
    """The token, if there is one. Without one every connection must have shown a certificate (see `server`)."""

    def __init__(self, token: str | None, *, clock: Clock = time.monotonic) -> None:
        self._token = None if token is None else _hash(token)
        self._shared_form_token = secrets.token_urlsafe(32)
        self.sessions = Sessions(clock)
        self.wrong = WrongTokens(clock)

    @property
    def asks(self) -> bool:
        """Whether a token is needed."""
        return self._token is not None

    def check_token(self, given: str, address: str) -> None:
        """Raises Refused for a wrong token; never for the right one, whatever else came from `address`."""
        if self._token is not None and hmac.compare_digest(_hash(given), self._token):
            return
        self.wrong.note(address)
        raise Refused(401, "wrong_token", "This is not the token.")

    def visitor(self, *, authorization: str | None, cookie: str | None, address: str) -> Visitor:
        """Whom these headers let in. Raises Refused."""
        if not self.asks:
            return Visitor(way="certificate", form_token=self._shared_form_token)
        if authorization is not None:
            scheme, _, given = authorization.partition(" ")
            # an address of its own: a scraper with an old token must not make the form say that too many were wrong
            self.check_token(given.strip() if scheme.lower() == "bearer" else "", f"bearer {address}")
            return Visitor(way="token", form_token=None)
        form_token = self.sessions.form_token(cookie) if cookie else None
        if form_token is None:
            raise Refused(401, "no_token", "A token is needed: send it as a bearer token, or log in.")
        return Visitor(way="session", form_token=form_token)


def visitor_of(request: Request) -> Visitor | None:
    """Who asks; None on the few routes that are open to all, where nobody was recognized."""
    return cast(Visitor | None, request.scope.get(VISITOR))


def address_of(request: Request) -> str:
    """The other side's address, as the audit calls it."""
    return request.client.host if request.client else "unknown"


def same_form_token(given: str, visitor: Visitor) -> bool:
    """Whether a form came from one of this visitor's own pages."""
    return visitor.form_token is None or hmac.compare_digest(_hash(given), _hash(visitor.form_token))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

"""Users, and browser sessions: in memory, so that a restart ends them."""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

Clock = Callable[[], float]
Role = Literal["viewer", "operator"]
"""A viewer sees the pages; an operator may also change something."""

MOST_SESSIONS = 1000
LONGEST_NAME = 64


@dataclass(frozen=True, kw_only=True)
class User:
    """Who uses the pages. `name` is for pages and audit log: printable, 1 to 64 characters."""

    name: str
    role: Role


@dataclass(frozen=True, kw_only=True)
class Session:
    """A browser session."""

    user: User
    form_token: str
    """CSRF token of the forms."""
    id_token: str | None
    """ID token of the provider, with which its own session can be ended; None after a login with the token."""
    opened_at: float
    used_at: float
    """Times of the clock of `Sessions`."""


@dataclass
class Sessions:
    """Browser sessions that have not expired, by their secret, which is the cookie."""

    absolute_s: float
    """A session ends this long after it was opened."""
    idle_s: float
    """A session ends this long after its last request."""
    clock: Clock = time.monotonic
    _open: OrderedDict[str, Session] = field(default_factory=OrderedDict)

    def open(self, user: User, *, id_token: str | None = None) -> str:
        """Open a session; its secret. Beyond MOST_SESSIONS the one that was opened first ends."""
        secret, now = secrets.token_urlsafe(32), self.clock()
        form_token = secrets.token_urlsafe(32)
        self._open[secret] = Session(user=user, form_token=form_token, id_token=id_token, opened_at=now, used_at=now)
        while len(self._open) > MOST_SESSIONS:
            self._open.popitem(last=False)
        return secret

    def use(self, secret: str) -> Session | None:
        """The session with this secret, which is used now; None if there is none or it has expired."""
        # a lookup by hash, so that its time does not reveal how much of a guess was right
        session, now = self._open.get(secret), self.clock()
        if session is None:
            return None
        if now >= session.opened_at + self.absolute_s or now >= session.used_at + self.idle_s:
            self.close(secret)
            return None
        self._open[secret] = replace(session, used_at=now)
        return session

    def close(self, secret: str) -> Session | None:
        """End the session; it, if there was one."""
        return self._open.pop(secret, None)


def shown_name(text: str) -> str:
    """A name from elsewhere, for pages and audit log: what is printable of it, at most LONGEST_NAME characters."""
    return "".join(each for each in text if each.isprintable()).strip()[:LONGEST_NAME] or "unknown"


def is_same_secret(one: str, other: str) -> bool:
    """Whether two secrets are equal, in a time that does not depend on how much of them is."""
    first, second = (hashlib.sha256(each.encode("utf-8", "surrogatepass")).digest() for each in (one, other))
    return hmac.compare_digest(first, second)

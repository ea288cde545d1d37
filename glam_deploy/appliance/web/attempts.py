"""Logins at the provider that are under way: each is kept by its own browser, in a signed cookie.

Of logins under way the server keeps nothing, so that requests without a login take no memory and push no other login
out. It keeps the states of those that have succeeded until they are too old, because each may succeed only once.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

from glam_deploy.appliance.web.sessions import Clock, is_same_secret

ATTEMPT_S = 600
"""Seconds from the start of a login to the provider's answer."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One login: the values that only its own browser and the provider know."""

    state: str
    nonce: str
    verifier: str
    """Code verifier of PKCE (RFC 7636)."""
    page: str
    """The page that the login leads to."""
    until: float
    """Time of the clock of `Attempts`."""


class Attempts:
    """Begins logins and recognizes them; a restart of the process ends those under way."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._key, self._clock = secrets.token_bytes(32), clock
        self._completed: dict[str, float] = {}
        """State -> `until`."""

    def begin(self, page: str) -> tuple[Attempt, str]:
        """A new login, and the cookie for it."""
        attempt = Attempt(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            page=page,
            until=self._clock() + ATTEMPT_S,
        )
        content = base64.urlsafe_b64encode(json.dumps(asdict(attempt)).encode()).decode()
        return attempt, f"{content}.{self._signature(content)}"

    def resume(self, cookie: str, state: str) -> Attempt | None:
        """The login of a cookie; None if it was not begun here, is too old, has succeeded, or has another state."""
        content, _, signature = cookie.partition(".")
        if not is_same_secret(signature, self._signature(content)):
            return None
        with suppress(ValueError, TypeError):
            attempt = Attempt(**json.loads(base64.urlsafe_b64decode(content)))
            if is_same_secret(state, attempt.state) and self._may_succeed(attempt):
                return attempt
        return None

    def complete(self, attempt: Attempt) -> bool:
        """Record that the provider has named the user; False if that comes too late, or for the second time."""
        if not self._may_succeed(attempt):
            return False
        now = self._clock()
        self._completed = {state: until for state, until in self._completed.items() if now < until}
        self._completed[attempt.state] = attempt.until
        return True

    def _may_succeed(self, attempt: Attempt) -> bool:
        return self._clock() < attempt.until and attempt.state not in self._completed

    def _signature(self, content: str) -> str:
        return hmac.new(self._key, content.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

"""Checks of `doctor` on access to the pages: the token and certificates, the reverse proxy, the login provider."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from glam_deploy.cli.doctor_findings import Finding, Processes, fails, note, ok
from glam_deploy.errors import UsageError

if TYPE_CHECKING:
    from glam_deploy.appliance.config import Config, Oidc, Web


def access(config: "Config", processes: Processes) -> Iterator[Finding]:
    """Findings on the section `web`; asks the login provider for its metadata."""
    from glam_deploy.appliance.web.access import check_web

    try:
        check_web(config.web)
    except UsageError as error:
        yield fails("web", str(error), "correct [web]")
    yield from _replaced_secrets(config.web, processes)
    yield from _proxy(config.web, processes)
    if config.web.oidc:
        yield from _provider(config.web, config.web.oidc)


def _replaced_secrets(web: "Web", processes: Processes) -> Iterator[Finding]:
    """Findings on secrets that were replaced after the start of the web process, which goes by the earlier ones."""
    from glam_deploy.appliance.web.access import secret_states

    used = processes["web"].detail.get("secrets", {}) if "web" in processes else {}
    now = secret_states(web)
    for key in (key for key, state in used.items() if now.get(key) != state):
        text = f"{key} was changed after the start of the pages, which go by the earlier secret"
        yield fails("web", text, "restart the appliance, which reads secrets at its start")


def _proxy(web: "Web", processes: Processes) -> Iterator[Finding]:
    """Findings on the reverse proxy, by the headers that arrived since the web process was started."""
    what = "proxy"
    strangers = processes["web"].detail.get("forwarded_by", []) if "web" in processes else []
    for address in strangers:
        text = f"forwarded headers of {address} are ignored, because it is not in web.trusted_proxies"
        yield note(what, text, f'if it is your proxy: trusted_proxies = ["{address}"]; else a client pretends')
    if web.public_url and not web.trusted_proxies:
        text = f"web.public_url is {web.public_url}, but web.trusted_proxies is empty"
        yield note(what, text, "name the proxy's address there: else all users have its address in the audit log")
    elif web.public_url and not strangers:
        yield ok(what, f"{web.public_url}, by {', '.join(map(str, web.trusted_proxies))}")


def _provider(web: "Web", oidc: "Oidc") -> Iterator[Finding]:
    from glam_deploy.appliance.web.oidc import ProviderUnavailable, discover

    what = "login provider"
    try:
        metadata, date = discover(oidc)
    except ProviderUnavailable as error:
        remedy = "check web.oidc.issuer and web.oidc.authority, and that this machine reaches it without an HTTP proxy"
        yield fails(what, str(error), remedy)
        return
    yield ok(what, f"{oidc.issuer} answers; it must have {web.redirect_uri} and {web.after_logout_uri} registered")
    yield from _abilities(what, metadata)
    yield from _clock(what, oidc, date)


def _abilities(what: str, metadata: Mapping[str, Any]) -> Iterator[Finding]:
    methods = metadata.get("code_challenge_methods_supported")
    if isinstance(methods, list) and "S256" not in methods:
        yield note(
            what, "it does not support PKCE with S256", "allow it for this client, so that a stolen code is useless"
        )
    if metadata.get("end_session_endpoint") is None:
        yield note(what, "it has no end_session_endpoint", "after a logout its own session goes on: tell your users")


def _clock(what: str, oidc: "Oidc", date: str | None) -> Iterator[Finding]:
    """The provider's clock by the header Date, which has whole seconds."""
    with suppress(TypeError, ValueError):
        ahead = parsedate_to_datetime(str(date)).timestamp() - time.time()
        if abs(ahead) > oidc.clock_skew_s + 1:
            text = f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this one"
            yield fails(what, text, "synchronize both with NTP: its ID tokens are refused beyond web.oidc.clock_skew_s")

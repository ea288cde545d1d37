"""Result of one check of `doctor`, and the check of a host name."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from glam_deploy.installation import quoted

if TYPE_CHECKING:
    from glam_deploy.appliance.state.overview import Component

FAILS = "FAILS"

Processes = Mapping[str, "Component"]
"""Name -> `overview.Component` with a recent heartbeat."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of the table that `doctor` prints."""

    state: str
    """ok, note (works, but should be looked at) or FAILS."""
    what: str
    found: str
    remedy: str = ""


def ok(what: str, found: str) -> Finding:
    return Finding(state="ok", what=what, found=found)


def note(what: str, found: str, remedy: str) -> Finding:
    return Finding(state="note", what=what, found=found, remedy=remedy)


def fails(what: str, found: str, remedy: str) -> Finding:
    return Finding(state=FAILS, what=what, found=found, remedy=remedy)


def unknown_host(what: str, node: object) -> Finding | None:
    """The finding on a node whose name has no address here; None for others.

    `node`: an entry of the configuration with `host`, or with a URL.
    """
    url = getattr(node, "url", None) or getattr(node, "stow_url", None)
    host = urlsplit(url).hostname if url else getattr(node, "host", None)
    try:
        socket.getaddrinfo(host or "localhost", None)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no host name"
        remedy = f"correct it, or the DNS of this machine: getent hosts {quoted(str(host))} must print its address"
        return fails(what, f"the host {host} is not known here ({reason})", remedy)
    return None

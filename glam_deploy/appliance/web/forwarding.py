"""Requests through a reverse proxy: the real client, host and scheme, and the path without that of `public_url`.

Headers are believed only from the addresses in `web.trusted_proxies`, because every client can send them.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope

from glam_deploy.addresses import Address, parsed_address
from glam_deploy.appliance.config import Web

PROXIED = "glam.proxied"
"""Key in a request's scope: whether a trusted proxy sent it."""
MOST_IGNORED = 20
"""Addresses that are remembered because they sent forwarded headers without being trusted."""
_HEADERS = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded")
_PAIR = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^\s;,"]*)')
"""A parameter of the header Forwarded (RFC 7239 section 4)."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Forwarded:
    """What the proxies tell about a request, each list beginning with the one nearest to the client."""

    clients: tuple[str, ...]
    hosts: tuple[str, ...]
    schemes: tuple[str, ...]


class Forwarding:
    """Applies the section `web` to requests; for the threads of one event loop."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self.ignored: list[str] = []
        """Addresses that sent forwarded headers without being trusted, at most MOST_IGNORED."""

    def applied(self, scope: Scope) -> tuple[Scope, Forwarded | None]:
        """The scope with the address of the real client and the path of a page; what a trusted proxy told, if any."""
        peer = scope["client"][0] if scope.get("client") else ""
        headers, told = Headers(scope=scope), None
        # none come from a trusted address through an SSH tunnel to the machine of the proxy
        if any(name in headers for name in _HEADERS):
            if self._is_trusted(peer):
                told = _x_forwarded(headers) if self._web.forwarded == "x-forwarded" else _rfc_7239(headers)
                scope = {**scope, "client": (self._client(peer, told.clients), 0)}
            else:
                self._ignore(peer)
        return {**scope, "path": self._page(scope["path"]), PROXIED: told is not None}, told

    def _client(self, peer: str, clients: tuple[str, ...]) -> str:
        """The last address that is no trusted proxy; those before it may be invented. "unknown" if it is none."""
        for client in reversed(clients):
            peer = _address(client)
            if not self._is_trusted(peer):
                break
        return peer

    def _is_trusted(self, address: str) -> bool:
        found = _parsed(address)
        return found is not None and any(found in network for network in self._web.trusted_proxies)

    def _ignore(self, peer: str) -> None:
        if peer not in self.ignored and len(self.ignored) < MOST_IGNORED:
            self.ignored.append(peer)
            _LOG.warning("forwarded headers of %s are ignored: it is not in web.trusted_proxies", peer or "unknown")

    def _page(self, path: str) -> str:
        """The path without that of `public_url`, which some proxies remove and others do not."""
        prefix = self._web.prefix
        return path.removeprefix(prefix) or "/" if path == prefix or path.startswith(f"{prefix}/") else path


def _x_forwarded(headers: Headers) -> Forwarded:
    lists = {name: tuple(_listed(headers, f"x-forwarded-{name}")) for name in ("for", "host", "proto")}
    return Forwarded(clients=lists["for"], hosts=lists["host"], schemes=lists["proto"])


def _listed(headers: Headers, name: str) -> Iterator[str]:
    for value in headers.getlist(name):
        yield from (each.strip() for each in value.split(",") if each.strip())


def _rfc_7239(headers: Headers) -> Forwarded:
    found: dict[str, list[str]] = {"for": [], "host": [], "proto": []}
    for value in headers.getlist("forwarded"):
        for name, quoted in _PAIR.findall(value):
            plain = re.sub(r"\\(.)", r"\1", quoted[1:-1]) if quoted.startswith('"') else quoted
            found.get(name.lower(), []).append(plain)
    return Forwarded(clients=tuple(found["for"]), hosts=tuple(found["host"]), schemes=tuple(found["proto"]))


def _address(node: str) -> str:
    """The address of a node as X-Forwarded-For and Forwarded write it, with a port or without; "unknown" for others."""
    text = node.partition("]")[0][1:] if node.startswith("[") else node
    found = _parsed(text) or _parsed(text.rpartition(":")[0])
    return str(found) if found else "unknown"


def _parsed(text: str) -> Address | None:
    try:
        return parsed_address(text)
    except ValueError:
        return None

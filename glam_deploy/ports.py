"""Listening at a port: why it fails (bind(2)), and whether this process may (capabilities(7), ip(7))."""

import errno
from contextlib import suppress
from pathlib import Path

PRIVILEGED_PORT = (
    "this user may not listen at it. Choose a port of 1024 or more, or give the service the capability "
    "CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities and CapabilityBoundingSet), or lower the system setting "
    "net.ipv4.ip_unprivileged_port_start"
)

_STATUS = Path("/proc/self/status")
_FIRST_UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_NET_BIND_SERVICE = 10
"""Number of the capability."""


def listen_remedy(error: OSError) -> str:
    """The remedy for an address and port that cannot be bound."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return PRIVILEGED_PORT
    if error.errno == errno.EADDRINUSE:
        return "stop the program that uses it, or choose another port"
    return "set `host` to an address of this machine, as `ip address` lists them, or to 0.0.0.0 for all"


def may_listen_at(port: int, *, status: Path = _STATUS, first_unprivileged: Path = _FIRST_UNPRIVILEGED) -> bool:
    """Whether this process may bind `port`, as far as rights decide. `status` and `first_unprivileged`: for tests."""
    first = 1024
    with suppress(OSError, ValueError):
        first = int(first_unprivileged.read_text("ascii"))
    return port >= first or bool(_capabilities(status) >> _NET_BIND_SERVICE & 1)


def _capabilities(status: Path) -> int:
    """The effective capabilities, a bit each; none if they cannot be read."""
    with suppress(OSError, ValueError, StopIteration):
        line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("CapEff:"))
        return int(line.split()[1], 16)
    return 0

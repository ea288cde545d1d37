"""The loop guard of the sending side: results never go to the appliance's own listeners."""

import socket
from urllib.parse import urlsplit

from glam_deploy.appliance.config import Config, Target

LOOPS = "its address is this appliance's own: results would be received as if they were images; correct the target"

_WEB_PORTS = {"http": 80, "https": 443}


def leads_back(target: Target, config: Config) -> bool:
    """Whether a target is this appliance itself: an address of this machine, and a port that we listen on."""
    host, port = _address(target)
    return port in _own_ports(config) and any(map(_is_here, _addresses(host)))


def _address(target: Target) -> tuple[str, int]:
    if target.stow_url is None:
        return target.host or "", target.port or 0
    url = urlsplit(target.stow_url)
    return url.hostname or "", url.port or _WEB_PORTS.get(url.scheme, 0)


def _own_ports(config: Config) -> set[int]:
    tls = config.receive.tls
    ports = {config.receive.port, tls.port if tls else None, config.web.port if config.web.stow else None}
    return {port for port in ports if port}


def _addresses(host: str) -> set[str]:
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:  # no such name now; asked again when it is connected to
        return set()


def _is_here(address: str) -> bool:
    """Only an address of this machine can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True

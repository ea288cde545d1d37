"""IP addresses. Those of IPv4 that an IPv6 socket shows as ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2) are IPv4 here."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAPPED_BITS = 96
"""Length of the prefix of IPv4-mapped addresses."""


def parsed_address(text: str) -> Address:
    """The address in a text, without its zone (%eth0). Raises ValueError if it is none."""
    found = ip_address(text.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return found if mapped is None else mapped


def shown_address(text: str) -> str:
    """The address of a peer, for rules, logs and people; any other text unchanged."""
    return str(parsed_address(text)) if text.lower().startswith("::ffff:") else text


def plain_network(network: Network) -> Network:
    """The network; one of IPv4-mapped addresses as the IPv4 network."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))

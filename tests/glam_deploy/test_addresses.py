"""Addresses of IPv4 that IPv6 sockets show as ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2)."""

from ipaddress import ip_network

import pytest

from glam_deploy.addresses import plain_network, shown_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::ffff:10.1.2.3", "10.1.2.3"), ("::FFFF:a01:203", "10.1.2.3"), ("10.1.2.3", "10.1.2.3"), ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"), ("pacs.example", "pacs.example"), ("", ""),
    ],
)  # fmt: skip
def test_addresses_as_shown(text: str, expected: str) -> None:
    assert shown_address(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::ffff:10.1.2.3", "10.1.2.3/32"), ("::ffff:10.1.2.0/120", "10.1.2.0/24"), ("::ffff:0:0/96", "0.0.0.0/0"),
        ("10.1.2.0/24", "10.1.2.0/24"), ("::/0", "::/0"), ("2001:db8::/32", "2001:db8::/32"),
    ],
)  # fmt: skip
def test_networks(text: str, expected: str) -> None:
    assert plain_network(ip_network(text)) == ip_network(expected)

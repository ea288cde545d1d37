"""Which address a request counts as, by RFC 7239 and by what proxies write into X-Forwarded-For."""

from typing import Any

import pytest

from glam_deploy.appliance.config import Web
from glam_deploy.appliance.web.forwarding import MOST_IGNORED, PROXIED, Forwarding

WEB = {"public_url": "https://pacs.example/glam", "trusted_proxies": ["10.0.0.0/24", "fd00::/8"]}


def scope(peer: str, path: str = "/", **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "client": (peer, 5), "path": path, "headers": pairs}


def client(peer: str, kind: str = "x-forwarded", **headers: str) -> str:
    applied, _ = Forwarding(Web.model_validate({**WEB, "forwarded": kind})).applied(scope(peer, **headers))
    return str(applied["client"][0])


@pytest.mark.parametrize(
    ("peer", "value", "expected"),
    [
        ("10.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "198.51.100.9, 192.0.2.1", "192.0.2.1"),  # the first is the client's own invention
        ("10.0.0.1", "192.0.2.1, 10.0.0.2", "192.0.2.1"),  # two proxies
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),  # a client in the network of the proxies
        ("10.0.0.1", "192.0.2.1:4711", "192.0.2.1"),  # with its port (Azure)
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "::ffff:192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "192.0.2.1, unknown", "unknown"),
        ("10.0.0.1", "not an address", "unknown"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("::ffff:10.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("fd00::1", "192.0.2.1", "192.0.2.1"),
        ("192.0.2.7", "192.0.2.1", "192.0.2.7"),
        ("10.0.1.1", "192.0.2.1", "10.0.1.1"),
    ],
)
def test_the_client_by_x_forwarded_for(peer: str, value: str, expected: str) -> None:
    assert client(peer, x_forwarded_for=value) == expected
    assert client(peer, "forwarded", x_forwarded_for=value) == peer.removeprefix("::ffff:" * peer.startswith("10.")), (
        "the header that is not configured"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [  # the first four are those of RFC 7239, sections 4 and 7.1
        ('for="_gazonk"', "unknown"),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ('for=192.0.2.43, for="[2001:db8:cafe::17]"', "2001:db8:cafe::17"),
        ('for=192.0.2.43;host="a,b;for=192.0.2.9"', "192.0.2.43"),
        ("for=192.0.2.43, for=10.0.0.2", "192.0.2.43"),
    ],
)
def test_the_client_by_forwarded(value: str, expected: str) -> None:
    assert client("10.0.0.1", "forwarded", forwarded=value) == expected
    assert client("10.0.0.1", forwarded=value) == "10.0.0.1", "the header that is not configured"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/glam", "/"),
        ("/glam/", "/"),
        ("/glam/studies", "/studies"),
        ("/studies", "/studies"),
        ("/glamour", "/glamour"),
    ],
)
def test_the_path_of_the_public_url_is_removed(path: str, expected: str) -> None:
    applied, _ = Forwarding(Web.model_validate(WEB)).applied(scope("192.0.2.1", path))
    assert (applied["path"], applied[PROXIED]) == (expected, False)


def test_few_strangers_are_remembered() -> None:
    forwarding = Forwarding(Web.model_validate(WEB))
    for number in range(3 * MOST_IGNORED):
        for _ in range(2):
            forwarding.applied(scope(f"192.0.2.{number}", x_forwarded_for="1.2.3.4"))
    forwarding.applied(scope("192.0.2.250"))
    assert forwarding.ignored == [f"192.0.2.{number}" for number in range(MOST_IGNORED)]

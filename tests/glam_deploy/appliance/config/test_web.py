"""The table `web` of `glam.toml`: URLs, proxies and the login provider."""

from typing import Any

import pytest
from pydantic import ValidationError

from glam_deploy.appliance.config import Web
from glam_deploy.appliance.config.web import OWN_PATHS
from glam_deploy.appliance.web.app import ROUTES, STOW_ROUTES

OIDC = {"issuer": "https://login.example/realms/pacs", "client_id": "glam", "viewer": ["radiology"]}


@pytest.mark.parametrize(
    ("url", "normal", "prefix", "origin"),
    [
        ("https://pacs.example", "https://pacs.example", "", "https://pacs.example"),
        ("https://pacs.example/", "https://pacs.example", "", "https://pacs.example"),
        ("https://PACS.example:443/glam/", "https://pacs.example/glam", "/glam", "https://pacs.example"),
        ("https://pacs.example:8443/a/b", "https://pacs.example:8443/a/b", "/a/b", "https://pacs.example:8443"),
        ("https://[2001:DB8::1]/glam", "https://[2001:db8::1]/glam", "/glam", "https://[2001:db8::1]"),
        ("http://localhost:80/glam", "http://localhost/glam", "/glam", "http://localhost"),
    ],
)
def test_public_urls(url: str, normal: str, prefix: str, origin: str) -> None:
    web = Web(public_url=url)
    assert (web.public_url, web.prefix, web.public_origin, web.public_is_confidential) == (normal, prefix, origin, True)


@pytest.mark.parametrize(
    "url",
    [
        *("pacs.example", "ftp://pacs.example", "https://", "https://user@pacs.example", "https://pacs.example/?a=b"),
        *(
            "https://pacs.example/#a",
            "https://pacs.example/a//b",
            "https://pacs.example/../b",
            "https://p\u00e4cs.example",
        ),
        *(
            "https://pacs.example/a b",
            'https://pacs.example/"',
            "https://pacs.example:0/",
            "https://pacs.example:99999/",
        ),
        *("https://pacs.example/studies", "https://pacs.example/login/glam"),
    ],
)
def test_other_public_urls_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match=r"expected the URL in the browser|a page of the appliance"):
        Web(public_url=url)


def test_paths_that_a_public_url_must_not_begin_with_are_those_of_the_server() -> None:
    first = {route.path.split("/")[1] for route in (*ROUTES, *STOW_ROUTES)}
    assert set(OWN_PATHS) == first - {""} | {"static"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"trusted_proxies": ["10.0.0.1"]}, "trusted_proxies go with public_url"),
        ({"oidc": OIDC}, "oidc goes with public_url"),
        (
            {"public_url": "https://a.example", "trusted_proxies": ["proxy"]},
            "not a valid IPv4 or IPv6 network",
        ),
        ({"oidc": {**OIDC, "issuer": "http://login.example"}}, "expected the https:// URL of the issuer"),
        ({"oidc": {**OIDC, "issuer": "https://login.example/?a"}}, "expected the https:// URL of the issuer"),
        ({"oidc": {**OIDC, "viewer": []}}, "nobody could log in"),
        ({"oidc": {**OIDC, "viewer": [""]}}, "at least 1 character"),
        ({"oidc": {**OIDC, "scopes": ["profile"]}}, "scopes are profile: expected openid"),
        ({"oidc": {**OIDC, "clock_skew_s": 900}}, "less than or equal to 300"),
        ({"session_s": 0}, "greater than 0"),
    ],
)
def test_what_does_not_fit_together(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Web.model_validate(change)


def test_a_provider_on_this_machine_may_be_http() -> None:
    Web.model_validate({"public_url": "http://127.0.0.1:1", "oidc": {**OIDC, "issuer": "http://127.0.0.1:2"}})

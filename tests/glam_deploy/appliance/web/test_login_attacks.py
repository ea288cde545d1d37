"""Answers of a provider, or of somebody who plays one, with which nobody may get in; and providers that are down."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from support.providers import CLIENT, FalseProvider, false_provider, oidc_table
from support.proxies import free_port
from support.web import Appliance, Client, appliance, configuration

from glam_deploy.appliance.web.attempts import ATTEMPT_S, Attempts

URL = "http://127.0.0.1:8042"
"""The appliance, without a socket."""


@pytest.fixture
def provider() -> Iterator[FalseProvider]:
    with false_provider() as provider:
        yield provider


@contextmanager
def using(folder: Path, issuer: str, **keys: Any) -> Iterator[Appliance]:
    oidc = oidc_table(issuer, **keys)
    with appliance(configuration(folder, public_url=URL, oidc=oidc, token_file=None)) as made:
        yield made


@pytest.fixture
def made(tmp_path: Path, provider: FalseProvider) -> Iterator[Appliance]:
    with using(tmp_path, provider.issuer) as made:
        yield made


def begin(client: Client, provider: FalseProvider, page: str = "/") -> str:
    """Start a login; its state. The provider signs its nonce."""
    answer = client.get("/login/start", params={"next": page})
    assert answer.status_code == 303
    asked = parse_qs(urlsplit(answer.headers["location"]).query)
    provider.nonce = asked["nonce"][0]
    return asked["state"][0]


def finish(client: Client, state: str, **query: str) -> httpx.Response:
    return client.get("/login/callback", params={"code": "a-code", "state": state, **query})


def codes(made: Appliance) -> list[str]:
    lines = [json.loads(line) for line in made.audited()]
    return [line["code"] for line in lines if line["event"] == "web_refused"]


def test_a_right_answer_gets_in(made: Appliance, provider: FalseProvider) -> None:
    client = made.client()
    answer = finish(client, begin(client, provider, "/studies"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/studies")
    assert client.get("/").status_code == 200
    (form,) = provider.asked
    assert form["grant_type"] == "authorization_code"
    assert (form["code"], form["client_id"]) == ("a-code", CLIENT)
    assert 43 <= len(form["code_verifier"]) <= 128


SECONDS = timedelta(seconds=1)
WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "of another issuer": {"iss": "https://evil.example"},
    "without an issuer": {"iss": None},
    "for another client": {"aud": "other"},
    "for others, authorized for another": {"aud": [CLIENT, "other"], "azp": "other"},
    "for several, without azp": {"aud": [CLIENT, "other"]},
    "without an audience": {"aud": None},
    "expired": {"exp": -120 * SECONDS},
    "that never expires": {"exp": None},
    "whose expiry is no number": {"exp": "tomorrow"},
    "issued in the future": {"iat": 600 * SECONDS, "exp": 900 * SECONDS},
    "not valid yet": {"nbf": 600 * SECONDS},
    "of another login": {"nonce": "another"},
    "without a nonce": {"nonce": None},
    "without a subject": {"sub": None},
    "with an empty subject": {"sub": ""},
}


@pytest.mark.parametrize("name", WRONG_CLAIMS)
def test_an_id_token_with_wrong_claims_is_refused(made: Appliance, provider: FalseProvider, name: str) -> None:
    provider.claims = WRONG_CLAIMS[name]
    refused(made, provider)


WRONG_HEADERS: dict[str, dict[str, Any]] = {
    "not signed": {"alg": "none"},
    "not signed, of no key": {"alg": "none", "kid": "one"},
    "signed with the client's secret": {"alg": "HS256", "kid": "one"},
    "of an unknown key": {"alg": "RS256", "kid": "two"},
    "of no algorithm": {"kid": "one"},
    "with a critical header": {"alg": "RS256", "kid": "one", "crit": ["b64"], "b64": False},
}


@pytest.mark.parametrize("name", WRONG_HEADERS)
def test_an_id_token_with_a_wrong_header_is_refused(made: Appliance, provider: FalseProvider, name: str) -> None:
    provider.header = WRONG_HEADERS[name]
    if name == "of no algorithm":
        provider.id_token = lambda: "e30.e30."  # type: ignore[method-assign]
    refused(made, provider)


def test_a_key_that_comes_with_the_id_token_is_not_used(made: Appliance, provider: FalseProvider) -> None:
    """`jwk` in the header: a key that the attacker has made."""
    with false_provider() as attacker:
        provider.header = {**provider.header, "jwk": attacker.jwks()["keys"][0], "jku": f"{attacker.issuer}/jwks"}
        provider.key, kept = attacker.key, provider.jwks()
        provider.jwks = lambda: kept  # type: ignore[method-assign]
        refused(made, provider)


def test_a_changed_id_token_is_refused(made: Appliance, provider: FalseProvider) -> None:
    whole = provider.id_token

    def changed() -> str:
        head, content, signature = whole().split(".")
        claims = json.loads(base64.urlsafe_b64decode(content + "=="))
        other = base64.urlsafe_b64encode(json.dumps({**claims, "groups": ["pacs-admin"]}).encode()).decode().rstrip("=")
        return f"{head}.{other}.{signature}"

    provider.id_token = changed  # type: ignore[method-assign]
    refused(made, provider)


@pytest.mark.parametrize("token", ["", "a", "a.b.c", "....", "\u00e4.\u00e4.\u00e4", "e30.e30.e30"])
def test_what_is_no_id_token_is_refused(made: Appliance, provider: FalseProvider, token: str) -> None:
    provider.id_token = lambda: token  # type: ignore[method-assign]
    refused(made, provider)


def refused(made: Appliance, provider: FalseProvider) -> None:
    """The login is refused as one with a wrong ID token, on a page, and nobody is in."""
    client = made.client()
    answer = finish(client, begin(client, provider))
    assert answer.status_code == 403
    assert "The ID token of the login provider is not valid" in answer.text
    assert "Traceback" not in answer.text and "anna" not in answer.text
    assert client.get("/").status_code == 303
    assert codes(made)[0] == "oidc_id_token"


@pytest.mark.parametrize(("issued", "expires"), [(-330, -30), (30, 330)])
def test_clocks_may_differ_a_little(made: Appliance, provider: FalseProvider, issued: int, expires: int) -> None:
    provider.claims = {"iat": issued * SECONDS, "exp": expires * SECONDS}
    client = made.client()
    assert finish(client, begin(client, provider)).status_code == 303


def test_a_forged_state_is_refused(made: Appliance, provider: FalseProvider) -> None:
    """Of no login, of another browser's login, and with a cookie that somebody made."""
    mine, other = made.client(), made.client()
    state, foreign = begin(mine, provider), begin(other, provider)
    assert finish(made.client(), state).status_code == 400
    assert finish(mine, foreign).status_code == 400
    assert finish(mine, "").status_code == 400
    content = mine.cookies["glam-login"].partition(".")[0]
    for cookie in (content, f"{content}.", f"{content}.{'0' * 64}", "", "."):
        assert finish(made.client(Cookie=f"glam-login={cookie}"), state).status_code == 400
    assert provider.asked == [], "the provider is not even asked"
    assert set(codes(made)) == {"oidc_state"}
    assert finish(other, foreign).status_code == 303


def test_a_saved_cookie_opens_no_second_session(made: Appliance, provider: FalseProvider) -> None:
    """A provider may accept a code twice, as this one does (RFC 6749 section 4.1.2 only says that it must not)."""
    client = made.client()
    state = begin(client, provider)
    saved = client.cookies["glam-login"]
    assert finish(client, state).status_code == 303
    assert finish(made.client(Cookie=f"glam-login={saved}"), state).status_code == 400
    assert (codes(made), len(provider.asked)) == (["oidc_state"], 1)


def test_one_of_two_answers_at_once_succeeds() -> None:
    now = 0.0
    attempts = Attempts(clock=lambda: now)
    attempt, cookie = attempts.begin("/")
    both = [attempts.resume(cookie, attempt.state) for _ in range(2)]
    assert both == [attempt, attempt]
    assert [attempts.complete(attempt) for _ in both] == [True, False]
    now = ATTEMPT_S
    other, _ = attempts.begin("/")
    assert attempts.complete(other)
    assert list(attempts._completed) == [other.state]


def test_a_login_ends_after_a_time() -> None:
    now = 0.0
    attempts = Attempts(clock=lambda: now)
    attempt, cookie = attempts.begin("/studies")
    now = ATTEMPT_S - 1
    assert attempts.resume(cookie, attempt.state) == attempt
    assert attempts.resume(cookie, attempt.nonce) is None
    assert Attempts(clock=lambda: now).resume(cookie, attempt.state) is None, "another process"
    now = ATTEMPT_S
    assert attempts.resume(cookie, attempt.state) is None


@pytest.mark.parametrize("page", ["https://evil.example", "//evil.example", "/\\evil.example", "/logout", "/login"])
def test_a_login_leads_to_pages_of_the_appliance_only(made: Appliance, provider: FalseProvider, page: str) -> None:
    client = made.client()
    assert finish(client, begin(client, provider, page)).headers["location"] == "/"


def test_an_answer_of_another_issuer_is_refused(made: Appliance, provider: FalseProvider) -> None:
    """RFC 9207: the parameter `iss` of the answer, which the provider may promise to send."""
    client = made.client()
    assert finish(client, begin(client, provider), iss="https://evil.example").status_code == 403
    assert finish(client, begin(client, provider), iss=provider.issuer).status_code == 303
    assert codes(made) == ["oidc_issuer"]


def test_a_promised_issuer_must_be_sent(tmp_path: Path, provider: FalseProvider) -> None:
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    with using(tmp_path, provider.issuer) as made:
        client = made.client()
        assert finish(client, begin(client, provider)).status_code == 403
        assert finish(client, begin(client, provider), iss=provider.issuer).status_code == 303


def test_the_providers_refusal_is_told(made: Appliance, provider: FalseProvider) -> None:
    client = made.client()
    state = begin(client, provider)
    answer = client.get("/login/callback", params={"error": "access_denied", "state": state, "error_description": "X"})
    assert (answer.status_code, "(access_denied)" in answer.text) == (403, True)
    answer = client.get("/login/callback", params={"error": "<script>", "state": state})
    assert (answer.status_code, "script" in answer.text) == (403, False)
    provider.token_status = 400
    answer = finish(client, begin(client, provider))
    assert (answer.status_code, "(invalid_grant)" in answer.text) == (403, True)
    assert codes(made) == ["oidc_error", "oidc_error", "oidc_code"]


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"issuer": "https://evil.example"}, "is the issuer https://evil.example, expected that of web.oidc.issuer"),
        ({"issuer": None}, "is the issuer None, expected that of web.oidc.issuer"),
        ({"token_endpoint": None}, "has no token_endpoint"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "has no authorization_endpoint"),
        ({"end_session_endpoint": "javascript:alert(1)"}, "has no end_session_endpoint"),
    ],
)
def test_wrong_metadata_are_not_used(
    made: Appliance, provider: FalseProvider, metadata: dict[str, Any], told: str
) -> None:
    provider.metadata = metadata
    answer = made.client().get("/login/start")
    assert (answer.status_code, told in answer.text) == (503, True)


def test_a_provider_that_is_down(tmp_path: Path) -> None:
    """A page without a stack trace; health and the login page work, and the next login tries again."""
    issuer = f"http://127.0.0.1:{free_port()}"
    with using(tmp_path, issuer) as made:
        client = made.client()
        answer = client.get("/login/start")
        assert answer.status_code == 503
        assert "The login provider 127.0.0.1 cannot be used: no connection" in answer.text
        assert "Traceback" not in answer.text
        assert client.get("/login").status_code == 200
        assert client.get("/health/live").status_code == 200
        assert codes(made) == ["oidc_unavailable"]


def test_a_provider_that_comes_back_is_used(made: Appliance, provider: FalseProvider) -> None:
    client = made.client()
    provider.metadata = {"issuer": "https://elsewhere.example"}
    assert client.get("/login/start").status_code == 503
    provider.metadata = {}
    assert finish(client, begin(client, provider)).status_code == 303
    provider.token_status = 500
    assert finish(client, begin(client, provider)).status_code == 503


def test_new_keys_of_a_provider_are_read(made: Appliance, provider: FalseProvider) -> None:
    client = made.client()
    assert finish(client, begin(client, provider)).status_code == 303
    provider.header = {"alg": "RS256", "kid": "two"}
    keys = provider.jwks()["keys"][0] | {"kid": "two"}
    provider.jwks = lambda: {"keys": [keys]}  # type: ignore[method-assign]
    assert finish(client, begin(client, provider)).status_code == 303


@pytest.mark.parametrize(
    ("claims", "keys", "role"),
    [
        ({"groups": "radiology"}, {}, "viewer"),
        ({"groups": ["pacs-admin"]}, {}, "operator"),
        ({"groups": ["radiology ", "RADIOLOGY"]}, {}, None),
        ({"groups": None}, {}, None),
        ({"groups": {"radiology": True}}, {}, None),
        ({"groups": [["radiology"], 5, None]}, {}, None),
        ({"groups": 5}, {}, None),
        ({"realm_access": {"roles": ["radiology"]}}, {"roles_claim": "realm_access.roles"}, "viewer"),
        ({"https://clinic/roles.all": ["radiology"]}, {"roles_claim": "https://clinic/roles.all"}, "viewer"),
        ({"realm_access": "radiology"}, {"roles_claim": "realm_access.roles"}, None),
    ],
)
def test_roles_by_a_claim(
    tmp_path: Path, provider: FalseProvider, claims: dict[str, Any], keys: dict[str, Any], role: str | None
) -> None:
    provider.claims = claims
    with using(tmp_path, provider.issuer, **keys) as made:
        client = made.client()
        answer = finish(client, begin(client, provider))
        assert answer.status_code == (403 if role is None else 303)
        if role:
            assert f"anna, {role}" in client.get("/").text
        else:
            assert codes(made) == ["no_role"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("A\u0000n\nna", "Anna"),
        ("x" * 300, "x" * 64),
        ("<b>", "&lt;b&gt;"),
        (" ", "sub-1"),
        (5, "sub-1"),
        (None, "sub-1"),
    ],
)
def test_names_of_users(made: Appliance, provider: FalseProvider, name: object, shown: str) -> None:
    provider.claims = {"preferred_username": name, "sub": "sub-1"}
    client = made.client()
    assert finish(client, begin(client, provider)).status_code == 303
    assert f"{shown}, viewer" in client.get("/").text

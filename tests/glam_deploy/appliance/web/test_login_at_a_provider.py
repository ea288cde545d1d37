"""Login with OpenID Connect at npm's certified `oidc-provider`: who gets in, as what, for how long, and out again."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from support.providers import SECRET, oidc_table, real_provider
from support.proxies import free_port
from support.web import PAGE, TOKEN, Appliance, appliance, configuration, serving


@dataclass
class Site:
    """An appliance whose users log in at a provider."""

    appliance: Appliance
    url: str
    issuer: str

    def browser(self) -> httpx.Client:
        return httpx.Client(headers=PAGE)

    def audited(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.appliance.audited()) if line["event"] == event]


@contextmanager
def site(
    folder: Path, *, claims_in_id_token: bool = True, secret: bool = True, client_secret: str = SECRET, **web: Any
) -> Iterator[Site]:
    port, other = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    keys: dict[str, Any] = {}
    if secret:
        keys["client_secret_file"] = folder / "client.secret"
        keys["client_secret_file"].touch(mode=0o600)
        keys["client_secret_file"].write_text(client_secret)
    with real_provider(other, url, claims_in_id_token=claims_in_id_token, secret=secret) as issuer:
        oidc = oidc_table(issuer, **keys)
        with (
            appliance(configuration(folder, **{"port": port, "public_url": url, "oidc": oidc, **web})) as made,
            serving(made),
        ):
            yield Site(made, url, issuer)


def log_in(browser: httpx.Client, begin: str, name: str, *, issuer: str) -> httpx.Response:
    """Through the provider's two pages; the answer of the appliance to the provider's."""
    answer = browser.get(begin)
    for _ in range(20):
        if answer.is_redirect:
            url = httpx.URL(answer.headers["location"])
            url = answer.url.join(url)
            answer = browser.get(url)
            if url.path.endswith("/login/callback"):
                return answer
            continue
        assert str(answer.url).startswith(issuer), answer.text
        prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
        assert prompt
        fields = {"prompt": prompt[1], "login": name, "password": "any"}
        action = re.search(r'action="([^"]+)"', answer.text)
        assert action
        answer = browser.post(answer.url.join(action[1]), data=fields)
    raise AssertionError("the login does not end")


@pytest.mark.parametrize(("in_id_token", "secret"), [(True, True), (False, True), (True, False)])
def test_an_operator_and_a_viewer_at_an_oidc_provider(tmp_path: Path, in_id_token: bool, secret: bool) -> None:
    """Groups in the ID token or at the userinfo endpoint; a client with a secret and one without."""
    with site(tmp_path, claims_in_id_token=in_id_token, secret=secret) as made:
        for name, role in (("anna", "operator"), ("vera", "viewer")):
            with made.browser() as browser:
                assert browser.get(f"{made.url}/failures").headers["location"] == "/login?next=/failures"
                page = browser.get(f"{made.url}/login?next=/failures").text
                (begin,) = re.findall(r'href="(/login/start[^"]*)"', page)
                answer = log_in(browser, made.url + begin, name, issuer=made.issuer)
                assert (answer.status_code, answer.headers["location"]) == (303, "/failures")
                cookie = next(each for each in answer.headers.get_list("set-cookie") if each.startswith("glam-session"))
                assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
                home = browser.get(f"{made.url}/").text
                assert f"{name}@clinic, {role}" in home
        logins = [(line["by"], line["role"], line["sender"]) for line in made.audited("web_login")]
        assert logins == [("anna@clinic", "operator", "127.0.0.1"), ("vera@clinic", "viewer", "127.0.0.1")]


def test_nobody_without_a_role_gets_in_at_an_oidc_provider(tmp_path: Path) -> None:
    with site(tmp_path) as made, made.browser() as browser:
        answer = log_in(browser, f"{made.url}/login/start", "otto", issuer=made.issuer)
        assert answer.status_code == 403
        assert "none of your groups" in answer.text
        assert browser.get(f"{made.url}/").status_code == 303
        refused = [(line["code"], line.get("by")) for line in made.audited("web_refused")]
        assert refused == [("no_role", "otto@clinic"), ("no_token", None)]


def test_the_token_beside_an_oidc_provider(tmp_path: Path) -> None:
    """For programs and in the form; STOW-RS takes no session. Without a token file no program gets in."""
    with site(tmp_path, stow=True) as made:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.get(f"{made.url}/metrics", headers=bearer).status_code == 200
        assert httpx.get(f"{made.url}/health/live").status_code == 200
        assert httpx.post(f"{made.url}/dicom-web/studies", headers=bearer).status_code == 415
        with made.browser() as browser:
            log_in(browser, f"{made.url}/login/start", "anna", issuer=made.issuer)
            answer = browser.post(f"{made.url}/dicom-web/studies", headers={"Origin": made.url})
            assert answer.status_code == 403
    (tmp_path / "other").mkdir()
    with site(tmp_path / "other", token_file=None) as made:
        assert httpx.get(f"{made.url}/metrics", headers=bearer).status_code == 401
        page = httpx.get(f"{made.url}/login").text
        assert "Log in at 127.0.0.1" in page
        assert "Token" not in page


def test_a_code_of_an_oidc_provider_counts_once(tmp_path: Path) -> None:
    """The same answer again, in the same browser or with its cookie in another one: its login is over."""
    with site(tmp_path) as made, made.browser() as browser:
        cookies: list[str] = []
        browser.event_hooks["request"] = [lambda sent: cookies.append(sent.headers.get("cookie", ""))]
        answer = log_in(browser, f"{made.url}/login/start", "anna", issuer=made.issuer)
        url, kept = answer.url, cookies[-1]
        assert "glam-login=" in kept
        again = browser.get(url)
        assert again.status_code == 400
        with made.browser() as thief:
            stolen = thief.get(url)
            assert (stolen.status_code, "set-cookie" in stolen.headers) == (400, False)
            with_cookie = thief.get(url, headers={"Cookie": kept})
            assert with_cookie.status_code == 400
            assert "has succeeded already" in with_cookie.text
            assert thief.get(f"{made.url}/").status_code == 303
        assert [line["code"] for line in made.audited("web_refused")] == [*["oidc_state"] * 3, "no_token"]


def test_a_wrong_secret_for_an_oidc_provider_is_told(tmp_path: Path) -> None:
    with site(tmp_path, client_secret="another one") as made, made.browser() as browser:
        answer = log_in(browser, f"{made.url}/login/start", "anna", issuer=made.issuer)
        assert answer.status_code == 403
        assert "(invalid_client)" in answer.text
        assert "another one" not in answer.text + "".join(made.appliance.audited())


def test_what_is_asked_of_an_oidc_provider(tmp_path: Path) -> None:
    """PKCE by S256, a state and a nonce that never repeat, and the registered redirect URI."""
    with site(tmp_path) as made:
        asked = []
        for _ in range(2):
            answer = httpx.get(f"{made.url}/login/start?next=https://evil.example")
            query = parse_qs(urlsplit(answer.headers["location"]).query)
            asked.append({name: values[0] for name, values in query.items()})
            assert {"HttpOnly", "SameSite=lax"} <= set(answer.headers["set-cookie"].split("; "))
        for one in asked:
            assert one["redirect_uri"] == f"{made.url}/login/callback"
            assert (one["response_type"], one["code_challenge_method"]) == ("code", "S256")
            assert one["scope"] == "openid profile"
        for name in ("state", "nonce", "code_challenge"):
            assert asked[0][name] != asked[1][name]
            assert len(asked[0][name]) >= 43


def test_logging_out_at_an_oidc_provider(tmp_path: Path) -> None:
    """The session ends here, and the browser goes on to the provider's end of its own."""
    with site(tmp_path) as made, made.browser() as browser:
        log_in(browser, f"{made.url}/login/start", "anna", issuer=made.issuer)
        session = browser.cookies["glam-session"]
        form_token = browser.get(f"{made.url}/").text.partition('name="form_token" value="')[2].partition('"')[0]
        assert browser.post(f"{made.url}/logout", headers={"Origin": made.url}).status_code == 403, "without the form"
        page = browser.post(f"{made.url}/logout", data={"form_token": form_token}, headers={"Origin": made.url})
        (refresh,) = re.findall(r'http-equiv="refresh" content="0; url=([^"]+)"', page.text)
        url = refresh.replace("&amp;", "&")
        assert url.startswith(f"{made.issuer}/session/end?")
        assert parse_qs(urlsplit(url).query)["post_logout_redirect_uri"] == [f"{made.url}/login"]
        assert "do you want to sign-out" in browser.get(url).text.lower(), "the provider knows the hint and the URI"
        stolen = httpx.get(f"{made.url}/", headers={**PAGE, "Cookie": f"glam-session={session}"})
        assert stolen.status_code == 303
        assert [line["by"] for line in made.audited("web_logout")] == ["anna@clinic"]


def test_a_session_of_an_oidc_provider_ends(tmp_path: Path) -> None:
    with site(tmp_path, session_s=1e-6) as made, made.browser() as browser:
        answer = log_in(browser, f"{made.url}/login/start", "anna", issuer=made.issuer)
        assert answer.status_code == 303
        assert browser.get(f"{made.url}/").headers["location"] == "/login"

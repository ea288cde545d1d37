"""Login at npm's `oidc-provider` in Chromium, through nginx with TLS and a path; by keyboard alone."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.browser import Seen, seen_by
from support.certificates import Authority
from support.providers import SECRET, oidc_table, real_provider
from support.proxies import PREFIX, X_FORWARDED, free_port, nginx
from support.web import Appliance, appliance, configuration, corrected_study, serving

FONTS = "https://fonts.googleapis.com/"
"""Asked for by the pages of the provider."""


@pytest.fixture(scope="module")
def site(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Appliance, str, str]]:
    """An appliance with a study that has a correction, its public URL, and a provider."""
    folder = tmp_path_factory.mktemp("login")
    port, other = free_port(), free_port()
    public, issuer = f"https://localhost:{port}{PREFIX}", f"http://127.0.0.1:{other}"
    secret = folder / "client.secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    oidc = oidc_table(issuer, client_secret_file=secret)
    keys = {"port": 0, "public_url": public, "trusted_proxies": ["127.0.0.1"], "oidc": oidc}
    with (
        appliance(configuration(folder, **keys)) as made,
        serving(made) as direct,
        nginx(folder, port, direct, lines=X_FORWARDED, pair=Authority(folder / "authority").sign("proxy")),
        real_provider(other, public),
    ):
        yield made, public, issuer


def press_until_there(seen: Seen, text: str) -> None:
    """Tab to the link or button with this text, and Enter."""
    for _ in range(60):
        seen.page.keyboard.press("Tab")
        if text in seen.page.evaluate("(one => one.matches('body') ? '' : one.textContent)(document.activeElement)"):
            break
    else:
        raise AssertionError(f"Tab does not reach {text}")
    with seen.page.expect_navigation():
        seen.page.keyboard.press("Enter")


def log_in(seen: Seen, issuer: str, name: str, path: str) -> None:
    """Begin at a page of the appliance, and come back to it."""
    seen.page.route(f"{FONTS}**", lambda route: route.abort())
    seen.go(path)
    seen.page.get_by_role("link", name="Log in at 127.0.0.1").wait_for()
    with seen.page.expect_navigation(url=f"{issuer}/interaction/**"):
        seen.page.keyboard.press("Enter")  # the link has the focus
    seen.page.locator("[name=login]").fill(name)
    seen.page.locator("[name=password]").fill("any")
    seen.page.keyboard.press("Enter")
    seen.page.get_by_role("button", name="Continue").click()
    seen.page.wait_for_url(seen.address + path)


def test_an_operator_accepts_a_correction_by_keyboard_in_chromium(
    chromium: Any, site: tuple[Appliance, str, str]
) -> None:
    made, public, issuer = site
    path = f"/study/{made.name(corrected_study(made, 1))}"
    with seen_by(chromium, public, any_certificate=True) as seen:
        log_in(seen, issuer, "anna", path)
        assert seen.page.evaluate("document.cookie") == "", "scripts do not see the session"
        (cookie,) = [each for each in seen.page.context.cookies() if each["name"].startswith("glam-")]
        assert (cookie["secure"], cookie["httpOnly"], cookie["path"]) == (True, True, PREFIX)
        assert "anna@clinic, operator" in seen.page.locator("header").inner_text()
        press_until_there(seen, "Accept version")
        assert seen.page.url.startswith(f"{public}{path}/versions/")
        press_until_there(seen, "Accept version")
        assert seen.page.url == public + path
        (line,) = [json.loads(line) for line in made.audited() if '"correction_accepted"' in line]
        assert (line["by"], line["sender"]) == ("anna@clinic", "127.0.0.1")
        seen.page.get_by_role("button", name="Log out").click()
        seen.page.wait_for_url(f"{issuer}/session/end**")
        with seen.page.expect_navigation(url=f"{public}/login**"):
            seen.page.get_by_role("button", name="Yes, sign me out").click()
        seen.go("/failures")
        assert seen.page.url == f"{public}/login?next=/failures"
        assert {url for url in seen.asked if not url.startswith((public + "/", issuer + "/", FONTS))} == set()
        assert [text for text in seen.said if "Content Security Policy" in text] == []


def test_a_viewer_sees_a_correction_in_chromium(chromium: Any, site: tuple[Appliance, str, str]) -> None:
    made, public, issuer = site
    path = f"/study/{made.name(corrected_study(made, 2))}"
    with seen_by(chromium, public, any_certificate=True) as seen:
        log_in(seen, issuer, "vera", path)
        assert "An operator can accept one of them" in seen.page.inner_text("main")
        assert seen.page.get_by_role("link", name="Accept version").count() == 0


def test_a_user_without_a_role_in_chromium(chromium: Any, site: tuple[Appliance, str, str]) -> None:
    _, public, _ = site
    with seen_by(chromium, public, any_certificate=True) as seen:
        seen.page.route(f"{FONTS}**", lambda route: route.abort())
        seen.go("/login/start")
        seen.page.locator("[name=login]").fill("otto")
        seen.page.locator("[name=password]").fill("any")
        seen.page.keyboard.press("Enter")
        seen.page.get_by_role("button", name="Continue").click()
        seen.page.wait_for_url(f"{public}/login/callback**")
        assert "none of your groups may use these pages" in seen.page.inner_text("main")
        seen.page.get_by_role("link", name="Log in").click()
        assert seen.page.url == f"{public}/login"

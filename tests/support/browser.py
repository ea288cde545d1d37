"""Debian's Chromium, driven by Playwright, on the appliance's pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from expected import need

from support.web import TOKEN

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
HEIGHT = 900


@dataclass
class Seen:
    """A page in a browser, and all that it said and asked for."""

    page: Any
    address: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        self.page.goto(self.address + path)

    def log_in(self) -> None:
        self.go("/")
        self.page.get_by_label("Token").fill(TOKEN)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(self.address + "/")

    def find(self, text: str) -> None:
        """Search for a study."""
        self.page.get_by_role("searchbox").fill(text)
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")

    def fit_height(self) -> None:
        """Make the window as high as the page, whose pictures are loaded then."""
        width = self.page.viewport_size["width"]
        self.page.set_viewport_size({"width": width, "height": HEIGHT})
        height = self.page.evaluate("document.documentElement.scrollHeight")
        self.page.set_viewport_size({"width": width, "height": height})
        # not wait_for_function: the policy forbids what it does when it waits
        self.page.evaluate("Promise.all([...document.images].map((one) => one.decode()))")

    def assert_clean(self) -> None:
        assert self.said == []
        assert {url for url in self.asked if not url.startswith(self.address + "/")} == set()


@contextmanager
def chromium_browser() -> Iterator[Any]:
    """Skips the test without Chromium."""
    need("chromium", "" if CHROMIUM else "chromium (Debian's package; `make web-test` installs it)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def seen_by(
    browser: Any,
    address: str,
    *,
    width: int = 1280,
    scheme: str = "light",
    scripts: bool = True,
    any_certificate: bool = False,
) -> Iterator[Seen]:
    """A new window without cookies. `scripts`: whether pages may run any."""
    context = browser.new_context(
        viewport={"width": width, "height": HEIGHT},
        color_scheme=scheme,
        java_script_enabled=scripts,
        ignore_https_errors=any_certificate,
    )
    seen = Seen(context.new_page(), address)
    seen.page.on("console", lambda message: seen.said.append(message.text))
    seen.page.on("pageerror", lambda error: seen.said.append(str(error)))
    seen.page.on("request", lambda asked: seen.asked.append(asked.url))
    yield seen
    context.close()

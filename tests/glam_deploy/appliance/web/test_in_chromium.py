"""The pages in Debian's Chromium: they work, fetch nothing from elsewhere, break no policy and fit their window."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from expected import need
from support.web import REFUSAL, TOKEN, Appliance, Busy, appliance, configuration, fill, serving

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WIDTHS = (768, 1280)
LEAST_CONTRAST = 4.5
"""WCAG 2.2, 1.4.3."""


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

    def assert_clean(self) -> None:
        assert self.said == []
        assert {url for url in self.asked if not url.startswith(self.address + "/")} == set()


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    need("chromium", "" if CHROMIUM else "chromium (Debian's package; `make web-test` installs it)")
    with appliance(configuration(tmp_path_factory.mktemp("chromium"), port=0)) as made:
        yield fill(made)


@pytest.fixture(scope="module")
def address(busy: Busy) -> Iterator[str]:
    with serving(busy.appliance) as address:
        yield address


@pytest.fixture(scope="module")
def chromium(busy: Busy) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def seen(chromium: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Seen]:
    """Of the width and the scheme that a test asks for as its parameter."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen = Seen(context.new_page(), address)
    seen.page.on("console", lambda message: seen.said.append(message.text))
    seen.page.on("pageerror", lambda error: seen.said.append(str(error)))
    seen.page.on("request", lambda asked: seen.asked.append(asked.url))
    yield seen
    context.close()


def pages(busy: Busy) -> list[str]:
    made = busy.appliance
    studies = [f"/study/{made.name(uid)}" for uid in (busy.delivered, busy.undelivered, busy.failed)]
    return ["/", "/studies", "/studies?stage=failed", "/failures", *studies]


def test_logging_in_and_out_in_chromium(seen: Seen) -> None:
    seen.go("/")
    assert seen.page.url == seen.address + "/login"
    assert seen.page.evaluate("document.activeElement.id") == "token"
    seen.page.keyboard.type("not the token")
    seen.page.keyboard.press("Enter")
    assert seen.page.get_by_role("alert").inner_text() == "Wrong token."
    seen.said.clear()  # Chromium tells of the 401
    seen.log_in()
    assert seen.page.evaluate("document.cookie") == "", "scripts do not see the session"
    seen.page.get_by_role("button", name="Log out").click()
    seen.page.wait_for_url(seen.address + "/login")
    seen.go("/failures")
    assert seen.page.url == seen.address + "/login"
    seen.assert_clean()


def test_the_slider_moves_between_image_and_map_in_chromium(seen: Seen, busy: Busy) -> None:
    seen.log_in()
    seen.go(f"/study/{busy.appliance.name(busy.undelivered)}")
    slider, image, map_ = (seen.page.locator(name) for name in (".slider input", "figure img:not(.map)", ".map"))
    for picture in (image, map_):
        picture.scroll_into_view_if_needed()
        picture.evaluate("one => one.decode()")  # not wait_for_function: the policy forbids what it does when it waits
        assert picture.evaluate("one => [one.naturalWidth, one.naturalHeight]") == [400, 600]
    assert map_.evaluate("one => getComputedStyle(one).opacity") == "1"
    over = seen.page.locator(".stack-of-two").screenshot()
    slider.focus()
    seen.page.keyboard.press("Home")
    assert map_.evaluate("one => getComputedStyle(one).opacity") == "0"
    assert seen.page.locator(".stack-of-two").screenshot() != over
    seen.page.keyboard.press("ArrowRight")
    assert float(map_.evaluate("one => getComputedStyle(one).opacity")) == pytest.approx(0.05)
    seen.assert_clean()


def test_retry_in_chromium(seen: Seen, busy: Busy) -> None:
    """Of a job from the list of failures, of a delivery from its study."""
    made = busy.appliance
    seen.log_in()
    seen.go("/failures")
    seen.page.get_by_role("button", name="Retry job").click()
    seen.page.get_by_role("button", name="Retry job").wait_for(state="detached")
    assert state(made, "SELECT state, attempts FROM job WHERE study_uid = ?", busy.failed) == ("ready", 0)
    seen.go(f"/study/{made.name(busy.undelivered)}")
    assert REFUSAL in seen.page.content()
    seen.page.get_by_role("button", name="Retry delivery to pacs").click()
    seen.page.get_by_text("sent again by hand").wait_for()
    assert seen.page.url.endswith(made.name(busy.undelivered))
    query = "SELECT p.state FROM parcel p JOIN job ON job.id = job_id WHERE study_uid = ? AND target = 'pacs'"
    assert state(made, query, busy.undelivered) == ("pending",)
    assert [line for line in made.audited() if '"web_retry"' in line and '"job"' in line]
    seen.assert_clean()


def state(made: Appliance, query: str, study_uid: str) -> tuple[Any, ...]:
    return tuple(made.connection.execute(query, (study_uid,)).fetchone())


def test_finding_a_study_in_chromium(seen: Seen, busy: Busy) -> None:
    """By its UID, which shows in no address."""
    seen.log_in()
    seen.page.get_by_role("searchbox").fill(busy.receiving)
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_url("**/study/*")
    assert seen.page.url.endswith(busy.appliance.name(busy.receiving))
    assert not [url for url in seen.asked if busy.receiving in url]
    seen.page.get_by_role("searchbox").fill("1.2.3")
    seen.page.keyboard.press("Enter")
    seen.page.get_by_text("No study has this").wait_for()
    seen.assert_clean()


@pytest.mark.parametrize("seen", [(w, s) for w in WIDTHS for s in ("light", "dark")], indirect=True, ids=str)
def test_every_page_fits_and_can_be_read_in_chromium(seen: Seen, busy: Busy) -> None:
    measure = (Path(__file__).parent / "measure.js").read_text("utf-8")
    seen.log_in()
    for path in pages(busy):
        seen.go(path)
        found = seen.page.evaluate(measure)
        assert found["needed"] <= found["width"], f"{path} is wider than its window"
        assert found["hidden"] == [], path
        faint = {text: ratio for text, ratio in found["contrast"].items() if ratio < LEAST_CONTRAST}
        assert faint == {}, path
        assert len(found["contrast"]) > 10
    seen.assert_clean()


def test_all_is_reached_by_keyboard_in_chromium(seen: Seen, busy: Busy) -> None:
    """Every link, field and button comes in turn, and shows that it is its turn."""
    seen.log_in()
    seen.go("/")
    wanted = seen.page.locator("a, button, input:not([type=hidden])").count()
    reached = []
    for _ in range(wanted):
        seen.page.keyboard.press("Tab")
        outline = seen.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        reached.append((seen.page.evaluate("document.activeElement.outerHTML"), outline))
    assert len({html for html, _ in reached}) > 10
    assert {outline for _, outline in reached} == {"solid"}
    assert "Skip to content" in reached[0][0]

"""The pages for people who use no mouse or no eyes: axe-core finds nothing, and the keyboard reaches everything."""

from pathlib import Path
from typing import Any

import pytest
from expected import need
from support.browser import Seen, seen_by
from support.long_web import Long
from support.web import TOKEN

AXE = Path(__file__).parent / "axe/node_modules/axe-core/axe.min.js"
WIDTHS = (390, 1366)

# Every element that the Tab key should stop at, in the order of the document: of a group of choices the chosen one.
STOPS = """() => {
  const all = "a[href], button, input:not([type=hidden], [tabindex='-1']), select, textarea, summary, [tabindex='0']";
  const chosen = (one) => one.type !== "radio" || one.checked;
  window.stops = [...document.querySelectorAll(all)].filter((one) => one.checkVisibility() && chosen(one));
  return stops.length;
}"""
# The stop that has the focus, whether its outline is drawn, and whether it is in the window and under nothing else.
FOCUS = """() => {
  const one = document.activeElement;
  const box = one.getBoundingClientRect();
  const top = document.elementFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2);
  const style = getComputedStyle(one);
  const drawn = style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2;
  return { stop: stops.indexOf(one), drawn, uncovered: one.contains(top) || top?.control === one, html: one.outerHTML };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_no_violation_in_chromium(chromium: Any, long: tuple[Long, str], width: int, scheme: str) -> None:
    """All rules of axe-core but those that are no criterion of anything: WCAG 2.2 A and AA, and best practices."""
    need("axe", "" if AXE.exists() else "`npm ci` in tests/glam_deploy/appliance/web/axe (`make web-test` does it)")
    records, address = long
    with seen_by(chromium, address, width=width, scheme=scheme) as seen:
        for name in records.pages(seen):
            seen.page.evaluate(AXE.read_text("utf-8"))
            found = seen.page.evaluate("axe.run()")
            violations = [
                (rule["id"], node["html"][:200], node["failureSummary"])
                for rule in found["violations"]
                for node in rule["nodes"]
            ]
            assert violations == [], name
            assert len(found["passes"]) > 15, name


@pytest.mark.parametrize("width", WIDTHS)
def test_tab_stops_at_everything_in_order_in_chromium(chromium: Any, long: tuple[Long, str], width: int) -> None:
    """Once each, where it is seen, and then leaves the page."""
    records, address = long
    with seen_by(chromium, address, width=width) as seen:
        for name in records.pages(seen):
            count = seen.page.evaluate(STOPS)
            seen.page.evaluate("stops[0].focus()")
            seen.page.keyboard.press("Shift+Tab")  # in front of all
            reached = []
            for _ in range(count):
                seen.page.keyboard.press("Tab")
                reached.append(seen.page.evaluate(FOCUS))
            assert [one["stop"] for one in reached] == list(range(count)), name
            assert [one["html"] for one in reached if not (one["drawn"] and one["uncovered"])] == [], name
            assert "Skip to content" in reached[0]["html"]
            seen.page.keyboard.press("Tab")
            assert seen.page.evaluate("stops.indexOf(document.activeElement)") in (-1, 0), f"{name} keeps the focus"


def test_the_keyboard_does_everything_in_chromium(chromium: Any, long: tuple[Long, str]) -> None:
    """Log in, skip the header, retry, search, accept a version, log out: with Tab, Enter and letters alone."""
    records, address = long
    with seen_by(chromium, address) as seen:
        seen.go("/")
        seen.page.locator("a.button:focus").wait_for()  # without a key
        tab_to(seen, "")
        seen.page.keyboard.type(TOKEN)
        enter(seen)
        assert seen.page.url == address + "/"
        seen.page.keyboard.press("Tab")
        seen.page.keyboard.press("Enter")
        assert seen.page.evaluate("document.activeElement.id") == "main"
        seen.page.keyboard.press("Tab")
        assert seen.page.evaluate("document.querySelector('main').contains(document.activeElement)")
        tab_to(seen, "Failures")
        enter(seen)
        assert seen.page.url == address + "/failures"
        tab_to(seen, "Retry job")
        enter(seen)
        assert seen.page.url == address + "/failures"
        seen.go(records.studies["undelivered"])
        tab_to(seen, "Retry delivery")
        enter(seen)
        assert seen.page.url == address + records.studies["undelivered"]
        assert seen.page.get_by_text("sent again by hand").count() == 1
        tab_to(seen, "UID or pseudonym")
        seen.page.keyboard.type(records.studies["failed"].rpartition("/")[2])
        enter(seen)
        assert seen.page.url == address + records.studies["failed"]
        tab_to(seen, "Accept version")
        enter(seen)
        tab_to(seen, "Accept version")
        enter(seen)
        assert seen.page.url == address + records.studies["failed"]
        tab_to(seen, "Log out")
        enter(seen)
        assert seen.page.url == address + "/login"


def enter(seen: Seen) -> None:
    with seen.page.expect_navigation():
        seen.page.keyboard.press("Enter")


def tab_to(seen: Seen, text: str) -> None:
    """The next element whose text or label has these words."""
    words = "[one.textContent, one.ariaLabel, one.placeholder].join()"
    name = f"(one => one.matches('body') ? '' : {words})(document.activeElement)"
    for _ in range(200):
        seen.page.keyboard.press("Tab")
        if text in seen.page.evaluate(name):
            return
    raise AssertionError(f"Tab does not reach {text}")

"""The site of the documentation, after `make site`, as Chromium shows it from a folder."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from expected import need
from support.browser import chromium_browser, seen_by
from support.commands import ROOT

pytestmark = pytest.mark.site

SITE = ROOT / "build/site"
AXE = ROOT / "tests/glam_deploy/appliance/web/axe/node_modules/axe-core/axe.min.js"
DIAGRAMS = re.findall(
    r"^```mermaid\n(.+?)^```", (ROOT / "docs/architecture.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
)
COLUMN, SMALLEST = 358, 9
"""Pixels of a page's column on a telephone of 390, and of the smallest text."""
SHOWN = """() => Promise.all([...document.querySelectorAll("article picture img")].map(async (one) => {
  await one.decode().catch(() => null);
  return { url: one.currentSrc, width: one.naturalWidth };
}))"""
PAGES = sorted(page.relative_to(SITE).as_posix() for page in SITE.rglob("*.html") if page.name != "404.html")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    need("site", "" if PAGES else "build/site (`make site` makes it)")
    with chromium_browser() as browser:
        yield browser


def test_every_page_of_the_documentation_is_there() -> None:
    need("site", "" if PAGES else "build/site (`make site` makes it)")
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in ROOT.glob("docs/**/*.md")}
    others = {
        "index.html",
        "commands.html",
        "reference.html",
        "changelog.html",
        "contributing.html",
        "benchmarks.html",
        "reporting.html",
        "tutorials/first-lesion-notebook.html",
    }
    assert set(PAGES) == sources | others


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1366, "dark")])
def test_pages_are_whole_and_accessible_in_chromium(chromium: Any, width: int, scheme: str) -> None:
    """Nothing from elsewhere, no page wider than the window, and nothing that axe-core finds."""
    need("axe", "" if AXE.exists() else "`npm ci` in tests/glam_deploy/appliance/web/axe (`make web-test` does it)")
    with seen_by(chromium, SITE.as_uri(), width=width, scheme=scheme) as seen:
        found = []
        for name in PAGES:
            seen.page.goto(f"{SITE.as_uri()}/{name}")
            wide = seen.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            found += [(name, "wider than the window", wide)] if wide else []
            seen.page.evaluate(AXE.read_text("utf-8"))
            rules = seen.page.evaluate("axe.run()")["violations"]
            found += [(name, rule["id"], rule["nodes"][0]["html"][:200]) for rule in rules]
        assert found == []
        assert [url for url in seen.asked if not url.startswith((f"{SITE.as_uri()}/", "data:", "blob:"))] == []


def test_the_search_finds_in_chromium(chromium: Any) -> None:
    with seen_by(chromium, SITE.as_uri(), width=1366) as seen:
        seen.page.goto(f"{SITE.as_uri()}/index.html")
        seen.page.get_by_placeholder("Search").fill("storage commitment")
        seen.page.wait_for_selector(".md-search-result__item")
        assert "commitment" in seen.page.inner_text(".md-search-result__list").lower()


def test_diagrams_are_drawn_in_chromium(chromium: Any) -> None:
    with seen_by(chromium, SITE.as_uri(), width=1366) as seen:
        seen.page.goto(f"{SITE.as_uri()}/architecture.html")
        drawn = seen.page.locator("div.mermaid")
        drawn.nth(len(DIAGRAMS) - 1).wait_for()
        assert drawn.count() == len(DIAGRAMS)


def test_text_of_diagrams_can_be_read_on_a_telephone_in_chromium(chromium: Any) -> None:
    """A page shrinks a diagram that is wider than itself, and with it the text of 16 pixels."""
    with seen_by(chromium, SITE.as_uri(), width=390) as seen:
        seen.page.add_script_tag(path=SITE / "assets/mermaid.min.js")
        for number, source in enumerate(DIAGRAMS):
            drawn = seen.page.evaluate("async (of) => (await mermaid.render(...of)).svg", [f"d{number}", source])
            box = re.match(r'<svg[^>]* viewBox="\S+ \S+ (\S+) \S+"', drawn)
            assert box
            assert 16 * min(1, COLUMN / float(box[1])) >= SMALLEST, source


@pytest.mark.parametrize("page", ["appliance", "performance"])
def test_pictures_are_shown_in_chromium(chromium: Any, page: str) -> None:
    """That for the window: a page has others for telephones and for the dark."""
    for width, scheme in ((390, "dark"), (1366, "light")):
        with seen_by(chromium, SITE.as_uri(), width=width, scheme=scheme) as seen:
            seen.page.goto(f"{SITE.as_uri()}/{page}.html")
            shown = seen.page.evaluate(SHOWN)
            assert len(shown) >= 2
            assert [one["url"] for one in shown if not one["width"]] == []
            assert all(("narrow" in one["url"] or "-390-dark" in one["url"]) == (width == 390) for one in shown)

"""The pages in Debian's Chromium: they work, fetch nothing from elsewhere, break no policy and fit their window."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.browser import Seen, seen_by
from support.web import REFUSAL, TOKEN, Appliance, Busy, appliance, configuration, fill, serving

from glam_deploy.appliance.data import FINDING


@pytest.fixture(scope="module")
def busy(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    with appliance(configuration(tmp_path_factory.mktemp("chromium"), port=0)) as made:
        yield fill(made)


@pytest.fixture(scope="module")
def address(busy: Busy) -> Iterator[str]:
    with serving(busy.appliance) as address:
        yield address


@pytest.fixture
def seen(chromium: Any, address: str) -> Iterator[Seen]:
    with seen_by(chromium, address) as seen:
        yield seen


def test_logging_in_and_out_in_chromium(seen: Seen) -> None:
    seen.go("/")
    assert seen.page.url == seen.address + "/login"
    seen.page.locator("#token:focus").wait_for()
    seen.page.keyboard.type("not the token")
    seen.page.keyboard.press("Enter")
    assert seen.page.get_by_role("alert").inner_text() == "Wrong token."
    seen.said.clear()  # Chromium tells of the 401
    seen.log_in()
    assert seen.page.evaluate("document.cookie") == "", "scripts do not see the session"
    seen.page.get_by_role("button", name="Log out").click()
    seen.page.wait_for_url(seen.address + "/login")
    seen.go("/failures")
    assert seen.page.url == seen.address + "/login?next=/failures"
    seen.page.locator("#token:focus").wait_for()
    seen.page.keyboard.type(TOKEN)
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_url(seen.address + "/failures")
    seen.assert_clean()


def test_the_picture_is_chosen_without_a_script_in_chromium(chromium: Any, busy: Busy, address: str) -> None:
    """Contours first; by the arrow keys the plain image and the map."""
    with seen_by(chromium, address, scripts=False) as seen:
        seen.log_in()
        seen.go(f"/study/{busy.appliance.name(busy.undelivered)}")
        layers = {name: seen.page.locator(f".picture {name}") for name in (".image", ".contours", ".map", ".scale")}
        pictures = []
        for key, visible in (
            ("Tab", [".image", ".contours", ".scale"]),
            ("ArrowLeft", [".image", ".scale"]),
            ("ArrowLeft", [".map", ".scale"]),
        ):
            while key == "Tab" and not seen.page.locator(".layers input:focus").count():
                seen.page.keyboard.press(key)
            if key != "Tab":
                seen.page.keyboard.press(key)
            assert [name for name, layer in layers.items() if layer.is_visible()] == visible
            pictures.append(seen.page.locator(".picture").screenshot())
        assert len(set(pictures)) == 3
        for layer in (".image", ".map"):
            size = layers[layer].evaluate("one => [one.naturalWidth, one.naturalHeight]")
            assert size == [400, 600]
        assert not [url for url in seen.asked if url.endswith(".js")]
        seen.assert_clean()


def test_contours_lie_on_the_picture_where_their_regions_are_in_chromium(seen: Seen, busy: Busy) -> None:
    """By the boxes of `finding.json`, in an image of 400 x 600 pixels that is shown whole in the middle."""
    (folder,) = busy.appliance.connection.execute(
        "SELECT folder FROM job_view JOIN job ON job.id = job_id WHERE study_uid = ?", (busy.undelivered,)
    ).fetchone()
    regions = json.loads((busy.appliance.context.data.root / folder / FINDING).read_text())["summary"]["regions"]
    assert regions
    seen.log_in()
    seen.go(f"/study/{busy.appliance.name(busy.undelivered)}")
    picture = seen.page.locator(".picture").bounding_box()
    scale = min(picture["width"] / 400, picture["height"] / 600)
    left = picture["x"] + (picture["width"] - 400 * scale) / 2
    top = picture["y"] + (picture["height"] - 600 * scale) / 2
    outlines = seen.page.locator("polygon:not(.edge)")
    for region, outline in zip(regions, outlines.all(), strict=True):
        found = outline.evaluate(
            "one => { const b = one.getBoundingClientRect(); return [b.y, b.x, b.bottom, b.right] }"
        )
        first, start, last, end = region["box"]
        wanted = [top + first * scale, left + start * scale, top + last * scale, left + end * scale]
        assert found == pytest.approx(wanted, abs=1)


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

"""The drawing over the picture of a view, in the pixels of the source image."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from glam_deploy.appliance.web.view_drawing import view_drawing

WHOLE = (0, 0, 3000, 2000)


def summary(**changes: Any) -> dict[str, Any]:
    """One region, of rows 100 to 200 and columns 300 to 350; pixels of 0.07 mm."""
    outline = [[100.0, 300.0], [100.0, 350.0], [200.0, 350.0], [200.0, 300.0], [100.0, 300.0]]
    region = {"label": "malignant", "outline": outline}
    return {"shape": [3000, 2000], "spacing_mm": [0.07, 0.07], "regions": [region]} | changes


def drawn(title: str = "L-CC", window: tuple[int, int, int, int] | None = WHOLE, **changes: Any) -> ElementTree.Element:
    return ElementTree.fromstring(view_drawing(summary(**changes), window, title=title))


def test_an_outline_has_columns_before_rows() -> None:
    edge, outline = drawn().iter("polygon")
    assert outline.get("class") == "malignant"
    assert outline.get("points") == edge.get("points") == "300,100 350,100 350,200 300,200 300,100"
    assert drawn().get("viewBox") == "0 0 2000 3000"


def test_regions_are_counted_for_who_does_not_see_them() -> None:
    regions = summary()["regions"] * 2 + [summary()["regions"][0] | {"label": "benign"}]
    assert drawn(regions=regions).get("aria-label") == "L-CC: outlines of 2 malignant and 1 benign regions"
    assert drawn(regions=[]).get("aria-label") == "L-CC: outlines of no regions"


@pytest.mark.parametrize(
    ("spacing", "millimetres"), [((0.07, 0.07), 50), ((0.2, 0.07), 50), ((0.05, 0.05), 20), ((0.0024, 0.0024), 1)]
)
def test_the_scale_bar_is_as_long_as_it_says(spacing: tuple[float, float], millimetres: int) -> None:
    """By the distance of columns, since it lies along a row; at most 0.4 of 2000 columns."""
    bar = drawn(spacing_mm=list(spacing)).find("g[@class='scale']")
    assert bar is not None
    length = re.findall(r"h([\d.]+)", bar.findall("path")[1].get("d") or "")
    assert float(length[0]) * spacing[1] == pytest.approx(millimetres, rel=1e-3)
    assert bar.findtext("text") == f"{millimetres} mm at the detector"


def test_the_scale_bar_lies_away_from_the_chest_wall() -> None:
    """That of a left breast is at the left edge."""
    for title, low, high in (("L-CC", 1000, 2000), ("R-MLO", 0, 1000)):
        path = drawn(title).findall("g[@class='scale']/path")[0].get("d") or ""
        start, length = re.findall(r"M([\d.]+),[\d.]+h([\d.]+)", path)[0]
        assert low <= float(start) < float(start) + float(length) <= high


@pytest.mark.parametrize("changes", [{"spacing_mm": None}, {"spacing_mm": [0.07, 0.0005]}])
def test_no_scale_bar_without_a_length_that_is_known_and_fits(changes: dict[str, Any]) -> None:
    assert drawn(**changes).find("g[@class='scale']") is None


def test_the_window_of_the_network_is_drawn_where_it_is_not_the_whole_image() -> None:
    (window,) = drawn(window=(28, 80, 2972, 2000)).iter("rect")
    assert [window.get(name) for name in ("x", "y", "width", "height")] == ["80", "28", "1920", "2944"]
    assert not list(drawn().iter("rect"))
    assert not list(drawn(window=None).iter("rect"))

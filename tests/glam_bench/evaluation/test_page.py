"""The page of an evaluation: every number of the record in it, data escaped, nothing that it needs from elsewhere."""

from pathlib import Path

import pytest
from support.evaluation import made_up, write_page
from support.report import parse

from glam_bench.evaluation import plots
from glam_bench.evaluation.plots import Axes, Panel, Series
from glam_deploy.outputs.report import STATEMENT

HOSTILE = "<script>alert(1)</script>&\x00"
SECTIONS = ["networks", "areas", "comparisons", "dice", "global-local", "froc", "calibration", "pictures", "left-out"]


def test_the_numbers_are_those_of_the_record(tmp_path: Path) -> None:
    found = write_page(tmp_path / "page.html")
    page = parse((tmp_path / "page.html").read_text("utf-8"))
    assert [section.attributes["id"] for section in page.all("section")] == SECTIONS
    area = found.models[2].areas[0]
    assert area.auroc is not None
    assert area.auroc.low is not None
    shown = f"{area.auroc.value:.3f} [{area.auroc.low:.3f}, {area.auroc.high:.3f}]"
    rows = [row.text for row in page.section("areas").all("tr")]
    assert f"glam{area.label}{shown}" in "".join(rows)
    dice = next(one for one in found.models[2].dice if one.definition == "threshold")
    assert f"at {dice.threshold:g}{dice.mean.value:.3f}" in page.section("dice").text
    text = page.text
    for said in ("optimistic", "2 sum(S M) / (sum(S) + sum(M))", "not calibrated", "Labels are made up.", STATEMENT):
        assert said in text
    assert "11_R-MLO.pngcamfailedthe png is damaged" in page.section("left-out").text
    assert len(page.section("pictures").all("img")) == 2 * 4
    assert page.all("script") == []
    assert not [one for one in page.all("img") if not (one.attributes["src"] or "").startswith("data:image/webp")]


def test_data_is_escaped(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", suffix=HOSTILE)
    content = (tmp_path / "page.html").read_text("utf-8")
    assert "<script" not in content
    assert "\x00" not in content
    assert HOSTILE.replace("\x00", "\ufffd") in parse(content).text


def test_made_up_networks_are_three() -> None:
    labelled, models = made_up()
    assert len(labelled.images) == 48
    assert [one.facts.title for one in models] == ["CAM", "GMIC", "GLAM"]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0, 0), (1, 0.5), (3, 0.75), (5, 1)], [(0, 0), (1, 0.5), (3, 0.75), (4, 0.75)]),
        ([(0, 0), (4, 0.5)], [(0, 0), (4, 0.5)]),
    ],
)
def test_a_curve_ends_at_the_end_of_its_axis(points: list[tuple[float, float]], expected: object) -> None:
    assert list(plots._inside(points, 4.0)) == expected


def test_points_that_cannot_be_told_apart_are_left_out() -> None:
    many = [(n / 100_000, n / 100_000) for n in range(100_001)]
    panel = Panel(title="malignant", series=[Series(model=0, points=many)])
    drawn = plots.draw([panel], ["a"], Axes(title="t", across="x", up="y"), 880)
    assert drawn is not None
    assert 450 < drawn.shapes.count("L") < 550
    assert plots.draw([], [], Axes(title="t", across="x", up="y"), 880) is None

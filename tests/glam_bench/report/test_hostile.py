"""Names that would be markup, and characters that no document may hold."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support.report import Node, with_strings, written

from glam_bench.report import write_ladder_svg

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)></title></style>&lt;\x00\x1b\ud800\u202e"
SHOWN = "\"'><script>alert(1)</script><img src=x onerror=alert(1)></title></style>&lt;\ufffd\ufffd\ufffd\u202e"


@pytest.fixture
def hostile(results: dict[str, Any]) -> Any:
    """In every string, and in every key that is a name; words that a key or a kind is told by stay beside it."""
    attacked = with_strings(results, lambda text: text + HOSTILE)
    attacked["machine"] |= {f"gpu{HOSTILE}": HOSTILE, "packages": {HOSTILE: HOSTILE}}
    attacked["files"] = {f"{name}{HOSTILE}": job for name, job in results["files"].items()}
    peaks = attacked["roofline"]["peaks"]["flop_per_s"]
    peaks[HOSTILE] = peaks["fp32"]
    for rung in (rung for rung in attacked["ladder"] if rung["parity"]):
        rung["stages_ms"][HOSTILE] = 100.0
        rung["parity"]["max_difference"][HOSTILE] = 0.5
        rung["parity"]["dice"][HOSTILE] = rung["parity"]["dice"]["benign"]
    return attacked


@pytest.fixture
def attacked(hostile: Any, tmp_path: Path) -> Node:
    return written(hostile, tmp_path)


def test_data_makes_no_elements(attacked: Node, page: Node) -> None:
    assert {node.name for node in attacked.walk()} == {node.name for node in page.walk()}
    assert len(attacked.all("style")) == len(attacked.all("h1")) == 1
    allowed = {name for node in page.walk() for name in node.attributes}
    assert {name for node in attacked.walk() for name in node.attributes} <= allowed


def test_data_is_shown_as_it_is(attacked: Node) -> None:
    assert SHOWN in attacked.one("h1").text
    assert attacked.of_class("notices")[0].one("li").text.endswith(SHOWN)
    assert [row.one("th").text[-len(SHOWN) :] for row in attacked.section("ladder").all("tbody")[0].all("tr")] == [
        SHOWN
    ] * 9
    assert attacked.section("machine").text.count(SHOWN) > 10


def test_the_ladder_alone_is_sound_xml(hostile: Any, tmp_path: Path) -> None:
    write_ladder_svg(hostile, tmp_path / "ladder.svg")
    root = ElementTree.fromstring((tmp_path / "ladder.svg").read_bytes())
    assert {node.tag.rpartition("}")[2] for node in root.iter()} == {"svg", "g", "title", "style", "rect", "text"}
    assert SHOWN in "".join(root.itertext())


def test_a_long_name_is_cut_where_it_is_drawn_and_whole_where_it_is_pointed_at(
    results: dict[str, Any], tmp_path: Path
) -> None:
    name = "an engine with a name that nobody would have thought of, " * 9
    results["ladder"][0]["name"] = name
    plot = written(results, tmp_path).section("ladder").plot("344")
    (drawn,) = (node for node in plot.all("text") if node.text.startswith("an engine"))
    assert drawn.children[0].endswith("…")
    assert len(str(drawn.children[0])) < 40
    assert drawn.one("title").text == name

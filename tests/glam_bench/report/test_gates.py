"""What gates found, inside the report."""

import json
from base64 import b64decode
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.report import gate_folder, written

from glam_bench.report import write
from glam_deploy.errors import UsageError

Results = dict[str, Any]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return gate_folder(tmp_path / "gate", {"02_L-CC": (2800, 200), "01_<R>&MLO": (2800, 200)})


def test_the_verdict_and_its_reasons(results: Results, gate: Path, tmp_path: Path) -> None:
    section = written(results, tmp_path, gates=[gate]).section("gate-1")
    assert section.one("h2").text == "The gate of openvino-int8"
    assert section.one("strong").text == "openvino-int8 failed against torch."
    assert [item.text for item in section.all("li")] == [
        "Dice of the fused <benign> map at 0.9: worst 0.9100, limit 0.95"
    ]
    told = dict(zip((n.text for n in section.all("dt")), (n.text for n in section.all("dd")), strict=True))
    assert told["patches in place"] == "75\u00a0% of 4"
    assert told["reasons"] == "local differs on the reference's own patch 1"
    assert told["limits"] == "dice_median 0.990, dice_worst 0.950, flips 0"


def test_dice_of_each_map(results: Results, gate: Path, tmp_path: Path) -> None:
    plot = written(results, tmp_path, gates=[gate]).section("gate-1").plot()
    assert [node.text for node in plot.of_class("strong")] == ["global", "patches", "fused"]
    squares = [node for node in plot.of_class("c-1") if node.name == "rect"][1:]
    assert len(squares) == 3 * 8, "of nine thresholds one was not judged"


def test_pictures_are_inside_the_page_the_worst_first(results: Results, gate: Path, tmp_path: Path) -> None:
    section = written(results, tmp_path, gates=[gate]).section("gate-1")
    captions = [figure.one("figcaption").text for figure in section.all("figure") if figure.all("img")]
    assert captions == [
        "1. <R>&MLO: lowest Dice 0.910; local differs on the reference's own patch",
        "2. L-CC: lowest Dice 0.99996",
    ]
    for image in section.all("img"):
        head, _, data = (image.attributes["src"] or "").partition(",")
        assert head == "data:image/webp;base64"
        with Image.open(BytesIO(b64decode(data))) as picture:
            assert picture.size == (1400, 100)
            rows = np.asarray(picture.convert("L"), np.float64).mean(axis=1)
        assert np.abs(rows - np.arange(0.5, 200, 2)).max() < 8
        assert image.attributes["alt"]


def test_each_gate_has_a_section(results: Results, gate: Path, tmp_path: Path) -> None:
    page = written(results, tmp_path, gates=[gate, gate])
    links = [link.attributes["href"] for link in page.one("nav").all("a")]
    assert links[6:8] == ["#gate-1", "#gate-2"]


def test_a_gate_that_compared_no_image(results: Results, gate: Path, tmp_path: Path) -> None:
    content = json.loads((gate / "gate.json").read_bytes())
    content["gate"] |= {"figures": {}, "images": 0, "failures": ["no image was compared"]}
    (gate / "gate.json").write_text(json.dumps(content | {"images": []}))
    for picture in (gate / "worst").iterdir():
        picture.unlink()
    section = written(results, tmp_path, gates=[gate]).section("gate-1")
    assert section.all("figure") == section.all("h3") == []


@pytest.mark.parametrize("content", [None, "[]", "{}", '{"schema": 2}', '{"schema": 1}', "not JSON"])
def test_another_folder_is_refused(content: str | None, results: Results, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "gate.json").write_text(content)
    with pytest.raises(UsageError, match=r"gate\.json cannot be used .* Give a folder of"):
        write(results, tmp_path / "report.html", gates=[tmp_path])


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (("gate", "figures", "patches"), "patches"),
        (("gate", "figures", "dice"), "dice"),
        (("gate", "figures", "dice", "fused", "benign", 0, "median"), "median"),
        (("gate", "engine"), "engine"),
        (("gate", "limits"), "limits"),
        (("images", 0, "lowest"), "lowest"),
        (("images", 1, "image"), "image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_part_that_is_missing_is_named(
    path: tuple[str | int, ...], named: str, results: Results, gate: Path, tmp_path: Path
) -> None:
    content = json.loads((gate / "gate.json").read_bytes())
    place = content
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    (gate / "gate.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=rf"gate\.json cannot be used \(KeyError: '{named}'\)"):
        write(results, tmp_path / "report.html", gates=[gate])


@pytest.mark.parametrize("value", [None, 3, "words", [1]])
@pytest.mark.parametrize("key", ["figures", "failures", "limits"])
def test_a_part_of_another_form_is_drawn_or_refused(
    key: str, value: object, results: Results, gate: Path, tmp_path: Path
) -> None:
    content = json.loads((gate / "gate.json").read_bytes())
    content["gate"][key] = value
    (gate / "gate.json").write_text(json.dumps(content))
    with suppress(UsageError):
        write(results, tmp_path / "report.html", gates=[gate])


def test_a_broken_picture_is_named(results: Results, gate: Path, tmp_path: Path) -> None:
    (gate / "worst" / "02_L-CC.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(UsageError, match=r"02_L-CC\.png: not a picture"):
        write(results, tmp_path / "report.html", gates=[gate])

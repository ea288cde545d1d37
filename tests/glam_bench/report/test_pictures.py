"""The worst cases of a gate, inside the report."""

import json
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support_report import written

from glam_bench.report import write
from glam_deploy.errors import UsageError

Results = dict[str, Any]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """As `glam-deploy gate --out` leaves it: figures, and pictures named in the order of badness."""
    folder = tmp_path / "gate"
    (folder / "worst").mkdir(parents=True)
    verdict = {"engine": "openvino-int8", "passed": False, "failures": ["Dice of <L-CC> 0.91, limit 0.95"]}
    (folder / "gate.json").write_text(json.dumps(verdict))
    ramp = np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 2800, 3))
    for name in ("02_L-CC", "01_<R>&MLO"):
        Image.fromarray(ramp).save(folder / "worst" / f"{name}.png")
    return folder


def test_pictures_are_inside_the_page_in_their_order(results: Results, gate: Path, tmp_path: Path) -> None:
    section = written(results, tmp_path, gates=[gate]).section("worst")
    assert [node.text for node in section.all("figcaption")] == ["01 <R>&MLO", "02 L-CC"]
    assert "openvino-int8: failed." in section.text
    assert [item.text for item in section.all("li")] == ["Dice of <L-CC> 0.91, limit 0.95"]
    for image in section.all("img"):
        head, _, data = (image.attributes["src"] or "").partition(",")
        assert head == "data:image/webp;base64"
        with Image.open(BytesIO(b64decode(data))) as picture:
            assert picture.size == (1400, 100)
            columns = np.asarray(picture.convert("L"), np.float64).mean(axis=1)
        assert np.abs(columns - np.arange(0.5, 200, 2)).max() < 8
        assert image.attributes["alt"]


def test_each_gate_has_a_section(results: Results, gate: Path, tmp_path: Path) -> None:
    page = written(results, tmp_path, gates=[gate, gate])
    links = [link.attributes["href"] for link in page.one("nav").all("a")]
    assert links[5:7] == ["#worst-1", "#worst-2"]


def test_a_gate_without_pictures_says_so(results: Results, gate: Path, tmp_path: Path) -> None:
    for picture in (gate / "worst").iterdir():
        picture.unlink()
    assert "left no pictures" in written(results, tmp_path, gates=[gate]).section("worst").text


def test_another_folder_is_refused(results: Results, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no gate\.json to be read"):
        write(results, tmp_path / "report.html", gates=[tmp_path])
    (tmp_path / "gate.json").write_text("[]")
    with pytest.raises(UsageError, match="not a JSON object"):
        write(results, tmp_path / "report.html", gates=[tmp_path])


def test_a_broken_picture_is_named(results: Results, gate: Path, tmp_path: Path) -> None:
    (gate / "worst" / "02_L-CC.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(UsageError, match=r"02_L-CC\.png: not a picture"):
        write(results, tmp_path / "report.html", gates=[gate])

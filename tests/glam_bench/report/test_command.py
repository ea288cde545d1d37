"""`python -m glam_bench.report`."""

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.report import parse

from glam_bench.report.__main__ import main

SAMPLE = Path(__file__).parents[1] / "bench" / "sample.json"


def test_report_beside_the_results_and_the_ladder(tmp_path: Path) -> None:
    shutil.copy(SAMPLE, tmp_path / "bench.json")
    assert main([str(tmp_path / "bench.json"), "--ladder", str(tmp_path / "ladder.svg")]) == 0
    assert len(parse((tmp_path / "bench.html").read_text("utf-8")).all("section")) == 9
    root = ElementTree.parse(tmp_path / "ladder.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "AMD EPYC 7B13, 2 cores" in "".join(root.itertext())


def test_what_is_no_bench_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bench.json").write_text("{}")
    assert main([str(tmp_path / "bench.json")]) == 2
    assert "schema None, expected 1" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]

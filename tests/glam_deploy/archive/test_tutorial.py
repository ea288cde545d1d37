"""docs/tutorials/archive.md, typed in the folder that the first tutorial leaves."""

from pathlib import Path

import pytest
from pacs.exams import write_exam
from support.tiny_bundle import write_tiny_bundle
from support.tutorials import type_out


@pytest.mark.ray
def test_it_ends_with_a_row_for_each_view(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    write_tiny_bundle(tmp_path / "bundle")
    write_exam(tmp_path / "demo/exam", "tutorial")
    said = type_out("archive", tmp_path)
    for view in ("L-CC", "L-MLO", "R-CC", "R-MLO"):
        assert f"{view} done 0." in said
    assert (tmp_path / "archive/summary.html").exists()

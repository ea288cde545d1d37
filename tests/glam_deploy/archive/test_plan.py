"""What a run would do, without Ray."""

from pathlib import Path

import pytest
from support.archive import plan_of, write_views

from glam_deploy.archive.dataset import make_folder
from glam_deploy.archive.plan import survey
from glam_deploy.archive.sources import open_source
from glam_deploy.errors import UsageError


def test_an_entry_that_the_source_has_twice_counts_once(tmp_path: Path) -> None:
    write_views(tmp_path / "in", ["a.dcm", "b.dcm"])
    (tmp_path / "list.txt").write_text("in/a.dcm\nin/a.dcm\n")
    source = open_source([str(tmp_path / "in"), str(tmp_path / "list.txt")])
    assert survey(plan_of(tmp_path / "in", tmp_path / "out", source=source)) == {"new": 2, "repeated": 2}


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_place_of_the_results(tmp_path: Path, place: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "file").write_text("a")
    plan = plan_of(tmp_path / "in", tmp_path / place)
    with pytest.raises(UsageError, match=r"a file is there, or on the way to it.*choose another --out"):
        make_folder(plan.dest)
    if place == "file":
        with pytest.raises(UsageError, match=r"a file is there, or on the way to it.*choose another --out"):
            survey(plan)


def test_results_where_no_files_can_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a folder on a file system for files: choose another --out"):
        make_folder(Path("/proc/results"))

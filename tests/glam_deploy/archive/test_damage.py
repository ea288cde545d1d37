"""Parts of the tables that were damaged or lost, with and without the ledger."""

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.archive import outcomes_in, rows
from support.archive_rows import RETRY, add_row, write_rows

from glam_deploy.archive.dataset import Dataset, known_entries
from glam_deploy.errors import UsageError

pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.ray


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def change_a_page(path: Path) -> None:
    """Change one byte of a page; a reader that does not check the pages notices nothing."""
    content = path.read_bytes()
    path.write_bytes(content.replace(b"done", b"gone", 1).replace(b"failed", b"mailed", 1))
    assert path.read_bytes() != content
    column = "outcome" if path.parts[-3] == "files" else "status"
    assert {*pq.ParquetFile(path).read([column]).column(0).to_pylist()} <= {"gone", "mailed"}


HARMS = [Path.unlink, shorten, change_a_page]


@pytest.mark.parametrize("table", ["views", "files"])
@pytest.mark.parametrize("harm", HARMS)
def test_a_lost_or_damaged_part_is_found_and_its_images_tried_again(
    tmp_path: Path, table: str, harm: Callable[[Path], object]
) -> None:
    write_rows(tmp_path, range(3))
    write_rows(tmp_path, range(3, 5))
    part = f"{table}/bundle=d/part-000001.parquet"
    harm(tmp_path / part)
    with known_entries(tmp_path, "d") as is_known:  # as a dry run, which leaves it there
        assert [is_known(f"e{n}") for n in range(5)] == [False] * 3 + [True] * 2
    with Dataset(tmp_path, "d") as dataset:
        assert dataset.repaired == (part,)
        assert [dataset.is_known(f"e{n}") for n in range(5)] == [False] * 3 + [True] * 2
        assert [dataset.instance(f"i{n}") is not None for n in range(5)] == [table == "files"] * 3 + [True] * 2
        for number in range(5):
            add_row(dataset, number)
        dataset.flush()
        assert dataset.lost == 0
    assert outcomes_in(tmp_path) == {f"{n}.dcm": "done" for n in range(5)}
    with Dataset(tmp_path, "d") as dataset:
        assert dataset.repaired == ()


@pytest.mark.parametrize("table", ["views", "files"])
@pytest.mark.parametrize("harm", HARMS)
def test_so_is_it_without_the_ledger(tmp_path: Path, table: str, harm: Callable[[Path], object]) -> None:
    write_rows(tmp_path, range(3))
    write_rows(tmp_path, range(3, 5))
    part = f"{table}/bundle=d/part-000001.parquet"
    harm(tmp_path / part)
    (tmp_path / "ledger-d.db").unlink()
    with Dataset(tmp_path, "d") as dataset:
        assert dataset.repaired == (() if harm is Path.unlink else (part,))
        assert [dataset.is_known(f"e{n}") for n in range(5)] == [False] * 3 + [True] * 2
        assert dataset.lost == (0 if harm is Path.unlink and table == "files" else 3)  # nothing knows of that one
    write_rows(tmp_path, range(5))
    assert outcomes_in(tmp_path) == {f"{n}.dcm": "done" for n in range(5)}


def test_a_part_that_the_disk_cannot_read_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path, range(3))
    read = hashlib.file_digest

    def fail(file: Any, name: str) -> Any:
        if "/views/" in file.name:
            raise OSError(errno.EIO, "Input/output error")
        return read(file, name)

    monkeypatch.setattr(hashlib, "file_digest", fail)
    with Dataset(tmp_path, "d") as dataset:
        assert dataset.repaired == ("views/bundle=d/part-000001.parquet",)
        assert not dataset.is_known("e0")


def test_entries_of_a_lost_part_count_until_they_have_a_row_again(tmp_path: Path) -> None:
    """Those that no source has in a run are told by it, and by all later ones."""
    write_rows(tmp_path, range(3))
    write_rows(tmp_path, range(3, 5))
    change_a_page(tmp_path / "views/bundle=d/part-000001.parquet")
    for numbers, lost in (((), 3), ((0, 4), 2), ((), 2), ((1, 2), 0)):
        with Dataset(tmp_path, "d") as dataset:
            for number in numbers:
                add_row(dataset, number)
            dataset.flush()
            assert dataset.lost == lost
        assert len(outcomes_in(tmp_path)) == 5 - lost
    (tmp_path / "ledger-d.db").unlink()
    with Dataset(tmp_path, "d") as dataset:
        assert dataset.lost == 0
    assert [path.name for path in tmp_path.rglob(".damaged*")] == [".damaged-part-000001"]


def test_damage_of_one_table_costs_no_row_of_the_other(tmp_path: Path) -> None:
    write_rows(tmp_path, range(5))
    before = rows(tmp_path, "views")
    change_a_page(tmp_path / "files/bundle=d/part-000001.parquet")
    write_rows(tmp_path, range(0))
    assert rows(tmp_path, "files") == []
    assert rows(tmp_path, "views") == before
    (tmp_path / "ledger-d.db").unlink()
    with Dataset(tmp_path, "d") as dataset:
        assert (dataset.repaired, dataset.lost) == ((), 0)  # as one who accepts the loss is told to do
    write_rows(tmp_path, range(5))
    assert rows(tmp_path, "views") == before and len(rows(tmp_path, "files")) == 5


def test_damage_during_a_run_ends_it_and_the_next_one_repairs_it(tmp_path: Path) -> None:
    write_rows(tmp_path, range(2))
    write_rows(tmp_path, range(2, 4), "failed")
    with Dataset(tmp_path, "d", kept=RETRY) as dataset:
        change_a_page(tmp_path / "files/bundle=d/part-000002.parquet")
        add_row(dataset, 2)
        with pytest.raises(UsageError, match=r"part-000002\.parquet has been damaged.*run the same command again"):
            dataset.flush()
    with Dataset(tmp_path, "d", kept=RETRY) as dataset:
        for number in range(4):
            add_row(dataset, number)
        dataset.flush()
    assert outcomes_in(tmp_path) == {f"{n}.dcm": "done" for n in range(4)}

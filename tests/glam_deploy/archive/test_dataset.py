"""The tables and their index through kills between any two steps, a full disk and repeated work."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.archive import outcomes_in, rows
from support.archive_rows import RETRY, add_row, write_rows
from support.commands import start_process

from glam_deploy.archive.dataset import Dataset, known_entries
from glam_deploy.archive.rows import FileRow
from glam_deploy.errors import UsageError

pytestmark = pytest.mark.ray

KILLED = """
import os, sys
from pathlib import Path
import pyarrow.parquet
from glam_deploy.archive.dataset import Dataset
from glam_deploy.archive.ledger import Ledger
from support.archive_rows import RETRY, add_row
from support.killed_steps import end_before, exit_codes

def life(number):
    steps = [(Ledger, name) for name in ("expect", "record", "rewritten", "forget_orphans")]
    end_before(number, (os, "fsync"), (Path, "replace"), *steps)
    kept = RETRY if sys.argv[3] == "retry" else None
    with Dataset(Path(sys.argv[1], str(number)), "d", kept=kept) as made:
        for each in range(5):
            add_row(made, each)
        made.flush()

print(exit_codes(int(sys.argv[2]), life))
"""
"""Runs that end without any clean-up before their n-th step, each into a folder of its own."""


def killed(dest: Path, prepare: Callable[[Path], object], what: str = "add") -> list[int]:
    """Folders `dest`/0, 1 ... after runs that ended at that step; their exit codes."""
    for number in range(LIVES):
        prepare(dest / str(number))
    process = start_process(dest, LIVES, what, code=KILLED)
    out, err = process.communicate()
    assert err == ""
    ends: list[int] = json.loads(out)
    assert set(ends) == {0, 9} and ends == sorted(ends, reverse=True)
    return ends


LIVES = 40


def test_a_kill_between_any_two_steps_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    ends = killed(tmp_path, lambda dest: write_rows(dest, range(2)))
    for number in range(LIVES):
        write_rows(tmp_path / str(number), range(7))
        assert outcomes_in(tmp_path / str(number)) == {f"{n}.dcm": "done" for n in range(7)}
    assert not list(tmp_path.rglob(".unfinished*")) and not list(tmp_path.rglob(".damaged*"))
    assert ends.count(9) >= 10  # two parts with five steps each, and the ledger


def test_a_kill_while_failures_are_replaced(tmp_path: Path) -> None:
    ends = killed(tmp_path, lambda dest: (write_rows(dest, range(3)), write_rows(dest, range(3, 5), "failed")), "retry")
    for number in range(LIVES):
        with Dataset(tmp_path / str(number), "d", kept=RETRY) as dataset:
            assert dataset.repaired == ()
            for each in range(5):
                add_row(dataset, each)
            dataset.flush()
        assert outcomes_in(tmp_path / str(number)) == {f"{n}.dcm": "done" for n in range(5)}
    assert ends.count(9) >= 20


def test_failures_that_are_not_tried_again_stay(tmp_path: Path) -> None:
    write_rows(tmp_path, range(5), "failed")
    with Dataset(tmp_path, "d", kept=RETRY) as dataset:
        assert not any(dataset.is_known(f"e{n}") or dataset.instance(f"i{n}") for n in range(5))
        add_row(dataset, 3)
        dataset.flush()
        assert dataset.is_known("e3") and not dataset.is_known("e4")
    assert outcomes_in(tmp_path) == {f"{n}.dcm": "done" if n == 3 else "failed" for n in range(5)}


def test_files_of_others_and_a_damaged_index_are_named(tmp_path: Path) -> None:
    write_rows(tmp_path, range(3))
    part = tmp_path / "views/bundle=d/part-000001.parquet"
    (part.parent / "part-backup.parquet").write_bytes(part.read_bytes())
    with pytest.raises(UsageError, match=r"part-backup\.parquet is no part"), Dataset(tmp_path, "d"):
        pass
    (part.parent / "part-backup.parquet").unlink()
    (tmp_path / "ledger-d.db").write_bytes(b"no database" * 100)
    with pytest.raises(UsageError, match=r"is damaged.*delete it"), Dataset(tmp_path, "d"):
        pass
    (tmp_path / "ledger-d.db").unlink()
    write_rows(tmp_path, range(4))
    assert outcomes_in(tmp_path) == {f"{n}.dcm": "done" for n in range(4)}


FULL = """
import resource, signal, sys
from pathlib import Path
from glam_deploy.archive.dataset import Dataset
from glam_deploy.errors import UsageError
from support.archive_rows import add_row

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Dataset(Path(sys.argv[1]), "d") as made:
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    for number in range(1000):
        add_row(made, number)
    try:
        made.flush()
    except UsageError as error:
        print(error)
"""


def test_a_full_disk_is_an_error_and_a_later_run_completes(tmp_path: Path) -> None:
    write_rows(tmp_path / "out", range(3))
    process = start_process(tmp_path / "out", code=FULL)
    out, err = process.communicate()
    assert err == ""
    # by the tables, or by SQLite's index, which has its own name for it, whichever grows too large first
    assert re.match(rf"cannot write to {tmp_path / 'out'} \((File too large|disk I/O error)\): free disk space", out)
    assert len(outcomes_in(tmp_path / "out")) == 3
    assert not list(tmp_path.rglob(".unfinished*"))
    write_rows(tmp_path / "out", range(1000))
    assert Counter(outcomes_in(tmp_path / "out").values()) == {"done": 1000}


def test_an_interrupted_flush_is_repeated_without_a_second_row(tmp_path: Path) -> None:
    """As Ctrl-C right after the ledger has recorded the part."""
    with Dataset(tmp_path, "d") as dataset:
        add_row(dataset, 1)
        record = dataset._ledger.record

        def interrupted(*arguments: object) -> None:
            record(*arguments)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dataset._ledger, "record", interrupted)
            with pytest.raises(KeyboardInterrupt):
                dataset.flush()
        dataset.flush()
    assert outcomes_in(tmp_path) == {"1.dcm": "done"}


def test_values_are_those_that_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path, range(1))
    (row,) = rows(tmp_path, "views")
    assert row["patches"] == [{"top": 1, "left": 2, "bottom": 3, "right": 4}, None]
    assert (row["timings_ms"], row["time_ms"], row["y_fusion_malignant"]) == ([("global", 1.5)], 1.5, None)
    assert (row["engine"], row["bundle_id"], row["gate"], row["made_by"]) == ("e", "b", "g", "m")
    assert json.dumps(rows(tmp_path, "files"))  # plain values


def test_one_writer(tmp_path: Path) -> None:
    with (
        Dataset(tmp_path, "d"),
        pytest.raises(UsageError, match="another glam-deploy archive writes to"),
        Dataset(tmp_path, "other"),
    ):
        pass


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    with Dataset(tmp_path, "d") as dataset:
        location = b"/in/\xff.dcm".decode("utf-8", "surrogateescape")
        dataset.add(
            FileRow(entry="e", instance="", location=location, version="", bytes=None, sha256="", outcome="unreadable")
        )
        dataset.flush()
    assert [row["location"] for row in rows(tmp_path, "files")] == ["/in/\\udcff.dcm"]


def test_a_dry_run_needs_no_ledger(tmp_path: Path) -> None:
    write_rows(tmp_path, range(1))
    (tmp_path / "ledger-d.db").unlink()
    before = sorted(tmp_path.rglob("*"))
    with known_entries(tmp_path, "d") as is_known:
        assert (is_known("e0"), is_known("e1")) == (True, False)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_has_a_row_is_told_without_changing_anything(tmp_path: Path) -> None:
    write_rows(tmp_path, range(1))
    before = sorted(tmp_path.rglob("*"))
    with known_entries(tmp_path, "d") as is_known:
        assert (is_known("e0"), is_known("e1")) == (True, False)
    with known_entries(tmp_path, "other") as is_known:
        assert not is_known("e0")
    assert sorted(tmp_path.rglob("*")) == before

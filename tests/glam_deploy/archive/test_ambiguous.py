"""Different images with one SOPInstanceUID: notices and DICOM objects, without Ray."""

import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.archive import rows
from support.archive_rows import RETRY, add_row
from support.commands import start_process

from glam_deploy.archive.dataset import Dataset, known_entries
from glam_deploy.archive.ledger import Instance, Ledger, Seen, uid_key
from glam_deploy.archive.objects import AMBIGUOUS_REASON, DICOM, SUFFIXES, ObjectPlan

pytestmark = pytest.mark.ray

UID = "1.2.826.0.1.3680043.8.498.1"
OTHER = "1.2.826.0.1.3680043.8.498.2"


def write_files(dest: Path, *numbers: int) -> None:
    """The DICOM objects of instances, as a predictor leaves them."""
    for number in numbers:
        for kind in DICOM:
            path = dest / f"objects/d/i{number}/i{number}{SUFFIXES[kind]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"made up for a test")


def run(dest: Path, numbers: Iterable[int], uid: str = UID, status: str = "done", flushes: bool = False) -> int:
    """Add instances in a run of its own; number of ambiguous ones afterwards."""
    with Dataset(dest, "d", kept=RETRY) as dataset:
        for number in numbers:
            if status == "done" and dataset.instance(f"i{number}") is None:
                write_files(dest, number)
            add_row(dataset, number, status, uid)
            if flushes:
                dataset.flush()
        dataset.flush()
        return dataset.ambiguous


def notices(dest: Path) -> dict[str, list[str]]:
    return {row["instance"]: row["notices"] for row in rows(dest, "views")}


def files(dest: Path) -> set[str]:
    """Names of the complete files of all instances."""
    found = (path for path in (dest / "objects").rglob("*") if path.is_file())
    return {path.name for path in found if ".unfinished" not in path.parts}


BOTH = ["no-dicom-object", "ambiguous-uid"]
OF_TWO = {"i2.seg.dcm", "i2.sr.dcm"}


def require_withdrawn(dest: Path) -> None:
    """Instances 0 and 1 have one UID and 2 another one."""
    assert notices(dest) == {"i0": BOTH, "i1": BOTH, "i2": []}
    assert files(dest) == {"i0.no-dicom.txt", "i1.no-dicom.txt"} | OF_TWO
    for row in rows(dest, "views"):
        assert row["reason"] == ("" if row["instance"] == "i2" else AMBIGUOUS_REASON) and row["status"] == "done"
    for number in (0, 1):
        assert (dest / f"objects/d/i{number}/i{number}.no-dicom.txt").read_text() == f"{AMBIGUOUS_REASON}\n"
    assert len(rows(dest, "files")) == 3


@pytest.mark.parametrize("flushes", [False, True])
@pytest.mark.parametrize("runs", [[(0, 1)], [(0,), (1,)], [(1, 0)]])
def test_two_images_with_one_uid_have_a_notice_and_no_object(
    tmp_path: Path, runs: list[tuple[int, ...]], flushes: bool
) -> None:
    run(tmp_path, [2], OTHER)
    for numbers in runs:
        found = run(tmp_path, numbers, flushes=flushes)
    assert found == 2
    require_withdrawn(tmp_path)
    parts = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert run(tmp_path, range(2)) == 2  # says so again, and writes nothing
    require_withdrawn(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == parts
    kept = ObjectPlan(folder=tmp_path / "objects/d", kinds=DICOM)
    assert all(kept.is_complete(f"i{number}") for number in range(3))


def test_a_third_image_joins_them(tmp_path: Path) -> None:
    run(tmp_path, [0, 1])
    assert run(tmp_path, [3]) == 3
    assert notices(tmp_path) == dict.fromkeys(("i0", "i1", "i3"), BOTH)
    assert {name.partition(".")[2] for name in files(tmp_path)} == {"no-dicom.txt"}


@pytest.mark.parametrize("harm", [None, Path.unlink])
def test_two_files_of_one_image_keep_their_objects(tmp_path: Path, harm: Callable[[Path], object] | None) -> None:
    """As in two transfer syntaxes: the results are equal. A third file of another image makes the UID ambiguous."""
    for number in (0, 1):
        with Dataset(tmp_path, "d") as dataset:
            write_files(tmp_path, number)
            add_row(dataset, number, uid=UID, found=0)
            dataset.flush()
            assert dataset.ambiguous == 0
    if harm:
        harm(tmp_path / "ledger-d.db")
    assert run(tmp_path, []) == 0
    assert notices(tmp_path) == {"i0": [], "i1": []} and len(files(tmp_path)) == 4
    assert run(tmp_path, [2]) == 3
    assert set(map(tuple, notices(tmp_path).values())) == {tuple(BOTH)}


def test_without_objects_there_is_the_notice_alone(tmp_path: Path) -> None:
    with Dataset(tmp_path, "d") as dataset:
        add_row(dataset, 0, uid=UID)
        add_row(dataset, 1, uid=UID)
        add_row(dataset, 2)
        add_row(dataset, 3)  # neither has a UID
        dataset.flush()
        assert dataset.ambiguous == 2
    assert notices(tmp_path) == {"i0": ["ambiguous-uid"], "i1": ["ambiguous-uid"], "i2": [], "i3": []}
    assert not (tmp_path / "objects").exists()


def test_a_failed_image_counts_once_it_has_a_result_and_a_skipped_one_at_once(tmp_path: Path) -> None:
    """A failed one is mostly a damaged copy of the other; a skipped one is whole, and another image."""
    run(tmp_path, [0])
    assert run(tmp_path, [1], status="failed") == 0
    assert notices(tmp_path) == {"i0": [], "i1": []} and files(tmp_path) == {"i0.seg.dcm", "i0.sr.dcm"}
    assert run(tmp_path, [1]) == 2
    assert notices(tmp_path) == {"i0": BOTH, "i1": BOTH}
    run(tmp_path / "skipped", [0])
    assert run(tmp_path / "skipped", [1], status="skipped") == 2
    assert notices(tmp_path / "skipped") == {"i0": BOTH, "i1": ["ambiguous-uid"]}
    assert files(tmp_path / "skipped") == {"i0.no-dicom.txt"}


def forget_ambiguous(ledger: Path) -> None:
    """Make it an older one: without UIDs."""
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        connection.execute("DROP TABLE ambiguous")
        connection.execute("DROP INDEX uid")
        for column in ("uid", "result"):
            connection.execute(f"ALTER TABLE instance DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 2")


@pytest.mark.parametrize("harm", [Path.unlink, forget_ambiguous])
def test_without_the_ledger_or_with_an_older_one(
    tmp_path: Path, harm: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also rows and objects that were written without notices."""
    run(tmp_path, [2], OTHER)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "to_rewrite", lambda self: [])
        patch.setattr(Dataset, "_withdraw_objects", lambda self: None)
        run(tmp_path, [0])
        run(tmp_path, [1])
    assert notices(tmp_path) == {"i0": [], "i1": [], "i2": []}
    harm(tmp_path / "ledger-d.db")
    with known_entries(tmp_path, "d") as is_known:
        assert is_known("e0") and len(files(tmp_path)) == 6  # a dry run changes nothing
    assert run(tmp_path, []) == 2
    require_withdrawn(tmp_path)


def test_objects_that_were_written_after_they_had_been_withdrawn(tmp_path: Path) -> None:
    run(tmp_path, [2], OTHER)
    run(tmp_path, [0, 1])
    write_files(tmp_path, 0)
    (tmp_path / "objects/d/i0/i0.no-dicom.txt").unlink()
    assert run(tmp_path, []) == 2
    require_withdrawn(tmp_path)


def test_the_notice_stays_after_the_row_of_the_other_image_was_lost(tmp_path: Path) -> None:
    run(tmp_path, [0])
    run(tmp_path, [1])
    (part,) = (path for path in (tmp_path / "views").rglob("*.parquet") if path.stem == "part-000002")
    part.unlink()
    assert run(tmp_path, []) == 1
    assert notices(tmp_path) == {"i0": BOTH} and files(tmp_path) == {"i0.no-dicom.txt", "i1.no-dicom.txt"}


KILLED = """
import os, sys
from pathlib import Path
import pyarrow.parquet
sys.path.insert(0, sys.argv[3])
import test_ambiguous
from glam_deploy.archive.ledger import Ledger
from support.killed_steps import end_before, exit_codes

def life(number):
    dest = Path(sys.argv[1], str(number))
    test_ambiguous.run(dest, [2], test_ambiguous.OTHER)
    test_ambiguous.run(dest, [0])
    steps = [(Ledger, name) for name in ("expect", "record", "rewritten")]
    end_before(number, (os, "fsync"), (Path, "replace"), (Path, "unlink"), *steps)
    test_ambiguous.run(dest, [1])

print(exit_codes(int(sys.argv[2]), life))
"""
"""Runs that end without any clean-up before their n-th step, each into a folder of its own."""
LIVES = 40


def test_a_kill_between_any_two_steps(tmp_path: Path) -> None:
    process = start_process(tmp_path, LIVES, Path(__file__).parent, code=KILLED)
    out, err = process.communicate()
    assert err == ""
    ends: list[int] = json.loads(out)
    assert set(ends) == {0, 9} and ends == sorted(ends, reverse=True) and ends.count(9) >= 20
    for number, end in enumerate(ends):
        dest = tmp_path / str(number)
        if end == 0:
            require_withdrawn(dest)
        for name in files(dest):  # an SR never refers to a segmentation that is not there
            assert not name.endswith(".sr.dcm") or name.replace(".sr.", ".seg.") in files(dest)
        assert run(dest, [1]) == 2  # the same command again
        require_withdrawn(dest)


def test_no_statement_of_an_image_reads_all_rows(tmp_path: Path) -> None:
    """By SQLite's own plan of each statement."""
    ledger, statements = Ledger(tmp_path / "ledger.db"), list[str]()
    connection: sqlite3.Connection = ledger._connection
    connection.set_trace_callback(statements.append)
    found = [
        Instance(id=f"i{n}", status="done", entry=f"e{n}", reason="", uid=uid_key(UID), result=bytes([n]))
        for n in range(3)
    ]
    ledger.record("part-000001", found, [Seen(id=f"e{n}", outcome="done", instance=f"i{n}") for n in range(3)])
    key = uid_key(UID)
    assert key and ledger.has_ambiguous(key) and ledger.is_ambiguous("i0") and len(list(ledger.ambiguous())) == 3
    connection.set_trace_callback(None)
    plans: dict[str, list[Any]] = {
        text: connection.execute(f"EXPLAIN QUERY PLAN {text}").fetchall()
        for text in statements
        if text.startswith(("SELECT", "INSERT", "DELETE"))
    }
    ledger.close()
    assert sum("ambiguous" in text for text in plans) >= 4
    scans = {step[3] for plan in plans.values() for step in plan if "SCAN" in step[3]}
    assert scans <= {"SCAN ambiguous", "SCAN CONSTANT ROW"}

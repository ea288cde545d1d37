"""The tables and their index through kills between any two steps, a full disk and repeated work."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.archive import outcomes_in, rows
from support.commands import start_process

from glam_deploy.archive.dataset import RETRIED, Dataset, Kept, known_entries
from glam_deploy.archive.identifiers import Identifiers
from glam_deploy.archive.rows import FileRow, Finding, Maker, ViewRow
from glam_deploy.errors import UsageError

pytestmark = pytest.mark.ray

RETRY = Kept(tried_again=RETRIED)
MAKER = Maker(engine="e", bundle="b", gate="g", made_by="m")


def add(dataset: Dataset, number: int, status: str = "done") -> None:
    """Add an instance and its entry as a run does: only what has no row."""
    entry, instance = f"e{number}", f"i{number}"
    if dataset.is_known(entry):
        return
    known = dataset.instance(instance)
    view = None
    if known is None:
        view = ViewRow(
            instance=instance,
            entry=entry,
            sha256=f"{number:064}",
            identifiers=Identifiers().of({}, f"/in/{number}.dcm"),
            finding=Finding(status=status, patches=((1, 2, 3, 4), None), timings_ms={"global": 1.5}),
            maker=MAKER,
        )
    outcome = status if known is None or known.entry == entry else "duplicate"
    row = FileRow(
        entry=entry,
        instance=instance,
        location=f"/in/{number}.dcm",
        version="1",
        bytes=10,
        sha256=f"{number:064}",
        outcome=outcome,
    )
    dataset.add(row, view)


def write(dest: Path, numbers: range, status: str = "done") -> None:
    with Dataset(dest, "d") as dataset:
        for number in numbers:
            add(dataset, number, status)
        dataset.flush()


KILLED = """
import os, sqlite3, sys
from pathlib import Path
from glam_deploy.archive import dataset
from glam_deploy.archive.ledger import Ledger
sys.path.insert(0, str(Path(dataset.__file__).parents[2] / "tests/glam_deploy/archive"))
import test_dataset

left = int(sys.argv[2])

def step(function):
    def counted(*arguments, **options):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return function(*arguments, **options)
    return counted

os.fsync, Path.replace, dataset.synchronize = map(step, (os.fsync, Path.replace, dataset.synchronize))
Ledger.record, Ledger.rewritten = map(step, (Ledger.record, Ledger.rewritten))
kept = test_dataset.RETRY if sys.argv[3] == "retry" else None
with dataset.Dataset(Path(sys.argv[1]), "d", kept=kept) as made:
    for number in range(5):
        test_dataset.add(made, number)
    made.flush()
os._exit(0)
"""
"""A run that ends without any clean-up before its n-th step."""


def killed(dest: Path, steps: int, what: str) -> int:
    process = start_process(dest, steps, what, code=KILLED)
    _, err = process.communicate()
    assert err == ""
    return process.returncode


def test_a_kill_between_any_two_steps_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    for steps in range(20):
        dest = tmp_path / str(steps)
        write(dest, range(2))
        ended = killed(dest, steps, "add")
        write(dest, range(7))
        assert outcomes_in(dest) == {f"{n}.dcm": "done" for n in range(7)}
        assert not list(dest.rglob(".unfinished*"))
        if ended == 0:
            break
    assert steps >= 7  # two parts with three steps each, and the ledger


def test_a_kill_while_failures_are_replaced(tmp_path: Path) -> None:
    for steps in range(30):
        dest = tmp_path / str(steps)
        write(dest, range(3))
        write(dest, range(3, 5), "failed")
        ended = killed(dest, steps, "retry")
        with Dataset(dest, "d", kept=RETRY) as dataset:
            for number in range(5):
                add(dataset, number)
            dataset.flush()
        assert outcomes_in(dest) == {f"{n}.dcm": "done" for n in range(5)}
        if ended == 0:
            break
    assert steps >= 10


def test_failures_that_are_not_tried_again_stay(tmp_path: Path) -> None:
    write(tmp_path, range(5), "failed")
    with Dataset(tmp_path, "d", kept=RETRY) as dataset:
        assert not any(dataset.is_known(f"e{n}") or dataset.instance(f"i{n}") for n in range(5))
        add(dataset, 3)
        dataset.flush()
        assert dataset.is_known("e3") and not dataset.is_known("e4")
    assert outcomes_in(tmp_path) == {f"{n}.dcm": "done" if n == 3 else "failed" for n in range(5)}


@pytest.mark.parametrize("table", ["views", "files"])
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-100])])
def test_a_lost_or_damaged_part_is_found_and_its_images_tried_again(
    tmp_path: Path, table: str, harm: Callable[[Path], object]
) -> None:
    write(tmp_path, range(3))
    write(tmp_path, range(3, 5))
    harm(tmp_path / table / "bundle=d/part-000001.parquet")
    with Dataset(tmp_path, "d") as dataset:
        assert dataset.repaired == ("part-000001",)
        assert [dataset.is_known(f"e{n}") for n in range(5)] == [False] * 3 + [True] * 2
        for number in range(5):
            add(dataset, number)
        dataset.flush()
    assert outcomes_in(tmp_path) == {f"{n}.dcm": "done" for n in range(5)}
    with Dataset(tmp_path, "d") as dataset:
        assert dataset.repaired == ()


def test_files_of_others_and_a_damaged_index_are_named(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    part = tmp_path / "views/bundle=d/part-000001.parquet"
    (part.parent / "part-backup.parquet").write_bytes(part.read_bytes())
    with pytest.raises(UsageError, match=r"part-backup\.parquet is no part"), Dataset(tmp_path, "d"):
        pass
    (part.parent / "part-backup.parquet").unlink()
    (tmp_path / "ledger-d.db").write_bytes(b"no database" * 100)
    with pytest.raises(UsageError, match=r"is damaged.*delete it"), Dataset(tmp_path, "d"):
        pass
    (tmp_path / "ledger-d.db").unlink()
    write(tmp_path, range(4))
    assert outcomes_in(tmp_path) == {f"{n}.dcm": "done" for n in range(4)}


FULL = """
import resource, signal, sys
from pathlib import Path
from glam_deploy.archive.dataset import Dataset
from glam_deploy.errors import UsageError
sys.path.insert(0, sys.argv[2])
import test_dataset

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Dataset(Path(sys.argv[1]), "d") as made:
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    for number in range(1000):
        test_dataset.add(made, number)
    try:
        made.flush()
    except UsageError as error:
        print(error)
"""


def test_a_full_disk_is_an_error_and_a_later_run_completes(tmp_path: Path) -> None:
    write(tmp_path / "out", range(3))
    process = start_process(tmp_path / "out", Path(__file__).parent, code=FULL)
    out, err = process.communicate()
    assert err == ""
    assert out.startswith(f"cannot write to {tmp_path / 'out'} (File too large): ")
    assert "free disk space" in out
    assert len(outcomes_in(tmp_path / "out")) == 3
    assert not list(tmp_path.rglob(".unfinished*"))
    write(tmp_path / "out", range(1000))
    assert Counter(outcomes_in(tmp_path / "out").values()) == {"done": 1000}


def test_an_interrupted_flush_is_repeated_without_a_second_row(tmp_path: Path) -> None:
    """As Ctrl-C right after the ledger has recorded the part."""
    with Dataset(tmp_path, "d") as dataset:
        add(dataset, 1)
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
    write(tmp_path, range(1))
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


def test_what_has_a_row_is_told_without_changing_anything(tmp_path: Path) -> None:
    write(tmp_path, range(1))
    before = sorted(tmp_path.rglob("*"))
    with known_entries(tmp_path, "d") as is_known:
        assert (is_known("e0"), is_known("e1")) == (True, False)
    with known_entries(tmp_path, "other") as is_known:
        assert not is_known("e0")
    assert sorted(tmp_path.rglob("*")) == before

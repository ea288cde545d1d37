"""What is removed from the data folder, and above all what is not."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.jobs import arrive, config_of, database_of, made
from support.until import until

from glam_deploy.appliance import keeper
from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import Retain
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.keeper import DAY_S, UNTOUCHED_S, Retention, Sweep
from glam_deploy.appliance.state import deliveries, jobs, studies
from glam_deploy.appliance.state.database import transaction
from glam_deploy.appliance.state.deliveries import ResultObject
from glam_deploy.appliance.state.jobs import JobViewOutcome

RULES = Retain(instances_days=7, results_days=30)
TABLES = ("instance", "quarantine", "study", "job", "job_view", "parcel", "parcel_object", "event", "rejection")


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return made(config_of(tmp_path))


@pytest.fixture
def connection(data: DataFolder) -> Iterator[sqlite3.Connection]:
    found = database_of(data)
    yield found
    found.close()


def received(data: DataFolder, connection: sqlite3.Connection, sop_uid: str, study: str = "1.2.3") -> Path:
    """A row and its file."""
    arrive(connection, sop_uid, study=study)
    path = data.instance(study, sop_uid)
    connection.execute("UPDATE instance SET path = ? WHERE sop_uid = ?", (data.relative(path), sop_uid))
    return written(path)


def written(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def finished(data: DataFolder, connection: sqlite3.Connection, study: str = "1.2.3") -> list[Path]:
    """The study is processed and has a delivery; its files of results."""
    studies.assemble_complete(connection, config_of(data.root).assemble, 1e4)
    job = jobs.claim(connection, worker="me", now=0, lease_s=1, attempts=1)
    assert job
    views = [data.view_results(view.sop_uid) for view in jobs.job_views(connection, job)]
    settled = [JobViewOutcome(sop_uid=folder.name, outcome="done", folder=data.relative(folder)) for folder in views]
    jobs.record_outcomes(connection, job, settled)
    made_of_it = ResultObject(kind="seg", sop_uid=f"9.{study}", sop_class="1.2", path="results/x.dcm")
    jobs.finish(connection, job, {"pacs": [made_of_it]})
    return [written(folder / "finding.json") for folder in (*views, data.job_results(job.key))]


def delivered(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE parcel SET state = 'delivered'")


def cleaner(data: DataFolder, connection: sqlite3.Connection) -> Retention:
    return Retention(data, connection, RULES, open_audit(data))


def count(connection: sqlite3.Connection) -> dict[str, int]:
    return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}


# retention


def test_files_and_then_rows_go_when_all_is_done_and_old(data: DataFolder, connection: sqlite3.Connection) -> None:
    instance = received(data, connection, "1.1")
    results, clean = finished(data, connection), cleaner(data, connection)
    connection.execute("INSERT INTO rejection VALUES ('1.9', '1.2.3', '113001', '1.10', 0)")
    delivered(connection)
    clean(0.0)
    clean(7 * DAY_S - 1)
    assert instance.exists()
    clean(7 * DAY_S)
    assert not instance.parent.exists()
    assert all(path.exists() for path in results)
    clean(30 * DAY_S - 1)
    assert count(connection)["job"] == 1
    clean(30 * DAY_S)
    assert not any(path.parent.exists() for path in results)
    assert set(count(connection).values()) == {0}
    (line,) = [line for path in data.audit.iterdir() for line in path.read_text().splitlines()]
    assert "study_removed" in line
    assert "1.2.3" not in line


def dead(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE job SET state = 'dead'")


def undelivered(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE parcel SET state = 'dead'")


def pending(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE parcel SET state = 'pending'")


def reopened(connection: sqlite3.Connection) -> None:
    arrive(connection, "1.9", now=1.0)


@pytest.mark.parametrize("what", [dead, undelivered, pending, reopened])
@pytest.mark.parametrize("seen_before", [False, True])
def test_nothing_goes_while_something_is_left_to_do_or_to_decide(
    data: DataFolder, connection: sqlite3.Connection, what: Callable[[sqlite3.Connection], None], seen_before: bool
) -> None:
    files = [received(data, connection, "1.1"), *finished(data, connection)]
    delivered(connection)
    clean = cleaner(data, connection)
    if seen_before:
        clean(0.0)
    what(connection)
    before = count(connection)
    clean(1.0)
    clean(365 * DAY_S)
    assert all(path.exists() for path in files)
    assert count(connection) == before


def test_time_counts_from_the_last_result(data: DataFolder, connection: sqlite3.Connection) -> None:
    first = received(data, connection, "1.1")
    finished(data, connection)
    delivered(connection)
    clean = cleaner(data, connection)
    clean(0.0)
    second = received(data, connection, "1.2")
    finished(data, connection)
    delivered(connection)
    clean(6 * DAY_S)
    clean(8 * DAY_S)
    assert first.exists()
    assert second.exists()
    clean(13 * DAY_S)
    assert not first.exists()


def test_instance_that_is_about_to_come_is_left(data: DataFolder, connection: sqlite3.Connection) -> None:
    received(data, connection, "1.1")
    finished(data, connection)
    delivered(connection)
    coming = written(data.instance("1.2.3", "1.2"))
    clean = cleaner(data, connection)
    clean(0.0)
    clean(365 * DAY_S)
    assert coming.exists()


def test_other_studies_are_left(data: DataFolder, connection: sqlite3.Connection) -> None:
    received(data, connection, "1.1")
    finished(data, connection)
    delivered(connection)
    other = received(data, connection, "1.2", study="1.2.4")
    clean = cleaner(data, connection)
    clean(0.0)
    clean(365 * DAY_S)
    assert other.exists()
    assert {name: n for name, n in count(connection).items() if n} == {"instance": 1, "study": 1, "event": 1}


def test_discarded_study_goes_too(data: DataFolder, connection: sqlite3.Connection) -> None:
    instance = received(data, connection, "1.1")
    finished(data, connection)
    undelivered(connection)
    deliveries.discard(connection, 1)
    clean = cleaner(data, connection)
    clean(0.0)
    clean(7 * DAY_S)
    assert not instance.exists()


def test_any_number_of_studies_is_removed(
    data: DataFolder, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a pass removes, long before the next check is due."""
    for number in range(2 * keeper.AT_ONCE + 1):
        received(data, connection, f"1.{number}", study=f"1.2.{number}")
    studies.assemble_complete(connection, config_of(data.root).assemble, 1e4)
    connection.execute("UPDATE job SET state = 'done'")
    monkeypatch.setattr(keeper, "CLEAN_S", 1e6)
    monkeypatch.setattr(keeper, "BETWEEN_PASSES_S", 0.0)
    rules, stop = config_of(data.root.parent, "[retain]\ninstances_days = 0\nresults_days = 0"), threading.Event()
    assert rules.data == data.root
    role = threading.Thread(target=keeper.run, args=(rules, stop))
    role.start()
    try:
        until(lambda: count(connection)["study"] == 0)
    finally:
        stop.set()
        role.join()
    assert set(count(connection).values()) == {0}
    assert not list((data.root / "spool/studies").iterdir())


# strays


def test_files_without_a_row_are_removed_after_an_hour_unchanged(
    data: DataFolder, connection: sqlite3.Connection
) -> None:
    strays = [
        written(data.incoming / ".a.part"),
        written(data.instance("1.2.3", "1.1")),
        written(data.root / "results/views/.b.part/seg.dcm").parent,
        written(data.view_results("ab" * 32) / "seg.dcm").parent,
        written(data.job_results("cd" * 32) / "sr.dcm").parent,
    ]
    sweep = Sweep(data, connection)
    sweep(0.0)
    sweep(UNTOUCHED_S - 1)
    assert all(path.exists() for path in strays)
    sweep(UNTOUCHED_S)
    assert not any(path.exists() for path in strays)


def test_strange_things_stop_no_sweep(data: DataFolder, connection: sqlite3.Connection, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "1.2.dcm").write_bytes(b"x")
    strange = [data.root / "spool/studies" / name for name in ("file.dcm", "link", "dangling")]
    strange[0].write_bytes(b"x")
    strange[1].symlink_to(victim)
    strange[2].symlink_to(tmp_path / "nothing")
    sweep = Sweep(data, connection)
    sweep(0.0)
    sweep(UNTOUCHED_S)
    assert not any(path.is_symlink() or path.exists() for path in strange)
    assert (victim / "1.2.dcm").read_bytes() == b"x"


def test_file_that_grows_is_somebodys(data: DataFolder, connection: sqlite3.Connection) -> None:
    part, sweep = written(data.incoming / ".a.part"), Sweep(data, connection)
    for hour in range(5):
        sweep(hour * UNTOUCHED_S)
        part.write_bytes(b"x" * (hour + 2))
    assert part.exists()


def test_what_a_row_names_stays(data: DataFolder, connection: sqlite3.Connection) -> None:
    files = [received(data, connection, "1.1"), *finished(data, connection)]
    sweep = Sweep(data, connection)
    sweep(0.0)
    sweep(10 * UNTOUCHED_S)
    assert all(path.exists() for path in files)


def test_file_that_gets_its_row_meanwhile_stays(data: DataFolder, connection: sqlite3.Connection) -> None:
    sweep, path = Sweep(data, connection), written(data.instance("1.2.3", "1.1"))
    sweep(0.0)
    received(data, connection, "1.1")
    sweep(10 * UNTOUCHED_S)
    assert path.exists()


def test_time_away_does_not_count(data: DataFolder, connection: sqlite3.Connection) -> None:
    """A keeper that has just started knows nothing of what happened before."""
    path = written(data.incoming / ".a.part")
    Sweep(data, connection)(0.0)
    Sweep(data, connection)(10 * UNTOUCHED_S)
    assert path.exists()


def test_rows_are_removed_whole_or_not_at_all(data: DataFolder, connection: sqlite3.Connection) -> None:
    received(data, connection, "1.1")
    finished(data, connection)
    before = count(connection)
    with pytest.raises(ZeroDivisionError), transaction(connection):
        studies.delete_study(connection, "1.2.3")
        raise ZeroDivisionError
    assert count(connection) == before

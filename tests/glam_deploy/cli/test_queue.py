"""`queue`: what a person sees, and that nothing is lost by what a person decides."""

import json
import os
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.bundles import NOBODY
from support.commands import PLAIN, Cli, Said, Start
from support.jobs import arrive, config_of, database_of, made, rows

from glam_deploy.appliance.config import Assemble
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.state import deliveries, jobs, studies
from glam_deploy.appliance.state.database import record_heartbeat, transaction
from glam_deploy.appliance.state.deliveries import ResultObject

DEAD, UNDELIVERED, WAITING = "dead000000000000", "deaf000000000000", "1234567890abcdef"
CONFIG = 'license_acknowledged = true\ndata = "data"\n[worker]\nbundle = "bundle"\n'

Queue = Callable[..., Said]


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    """A study whose job is dead, one whose parcel is dead, one that waits."""
    (tmp_path / "glam.toml").write_text(CONFIG)
    data = made(config_of(tmp_path))
    with closing(database_of(data)) as connection:
        for n, name in enumerate((DEAD, UNDELIVERED, WAITING)):
            arrive(connection, f"1.{n}", study=f"1.2.{n}")
            connection.execute("UPDATE study SET pseudonym = ? WHERE study_uid = ?", (name, f"1.2.{n}"))
            studies.assemble_complete(connection, Assemble(quiet_s=0), 0.0)
        first, second = (jobs.claim(connection, worker="me", now=0, lease_s=9, attempts=1) for _ in range(2))
        assert first
        assert second
        jobs.fail(connection, first, now=0, attempts=1, reason="the engine failed on it")
        sent = ResultObject(kind="seg", sop_uid="9.1", sop_class="1.2", path="results/x.dcm")
        jobs.finish(connection, second, {"pacs": [sent]})
        with transaction(connection):
            connection.execute("UPDATE parcel SET state = 'dead', reason = 'refused', attempts = 20")
            connection.execute("UPDATE parcel_object SET state = 'dead'")
    return data


@pytest.fixture
def queue(cli: Cli, data: DataFolder) -> Queue:
    config = data.root.parent / "glam.toml"
    return lambda word, *arguments: cli("queue", word, "--config", config, *arguments)


def test_list_tells_what_waits_and_what_is_stuck(queue: Queue) -> None:
    lines = queue("list").out.splitlines()
    told = {line.split()[0]: line.split()[1] for line in lines if not line.startswith(" ")}
    assert told == {DEAD: "failed", UNDELIVERED: "undelivered", WAITING: "waiting"}
    assert "    the engine failed on it" in lines
    assert "    pacs: refused" in lines


def test_list_tells_why_results_wait_for_a_target_that_is_down(queue: Queue, data: DataFolder) -> None:
    with closing(database_of(data)) as connection:
        connection.execute("UPDATE parcel SET state = 'pending', reason = NULL, attempts = 0")
        for name, state, detail in (
            ("target:pacs", "waiting", {"reason": "no connection to PACS", "next_try_s": 8}),
            ("target:archive", "waiting", {"reason": "another target"}),
        ):
            record_heartbeat(connection, lambda: 0.0, name, state, detail)
    assert "    pacs: no connection to PACS" in queue("list", "--stage", "sending").out.splitlines()
    with closing(database_of(data)) as connection:
        record_heartbeat(connection, lambda: 0.0, "target:pacs", "ready", {})
    assert "no connection" not in queue("list").out


def test_list_of_one_stage_and_as_json(queue: Queue) -> None:
    (line,) = json.loads(queue("list", "--stage", "failed", "--json").out)
    assert (line["pseudonym"], line["stage"], line["views"]) == (DEAD, "failed", "L-CC")


def test_list_of_nothing(queue: Queue, data: DataFolder) -> None:
    assert queue("list", "--stage", "receiving").out == "no unfinished studies\n"


def test_pseudonyms_are_whole_in_a_narrow_terminal(start: Start, data: DataFolder) -> None:
    config = data.root.parent / "glam.toml"
    out, _ = start("queue", "list", "--config", config, code=PLAIN, env={"COLUMNS": "40"}).communicate()
    assert {DEAD, UNDELIVERED, WAITING} <= set(out.split())


@pytest.mark.parametrize("word", [DEAD, "dead", "1.2.0"])
def test_show_takes_pseudonyms_their_beginnings_and_uids(queue: Queue, word: str) -> None:
    said = queue("show", word)
    assert said.code == 0
    assert said.out.startswith(f"{DEAD}  failed\n")
    assert "job 1  dead, 1 attempts: the engine failed on it" in said.out
    assert "received: candidate L-CC" in said.out


def test_show_as_json_has_the_whole_story(queue: Queue) -> None:
    (told,) = json.loads(queue("show", "--json", UNDELIVERED).out)
    assert told["parcels"][0] | {"target": "pacs", "state": "dead", "objects": 1, "arrived": 0} == told["parcels"][0]


@pytest.mark.parametrize(("word", "told"), [("beef", "no study 'beef'"), ("de", "no study"), ("dea", "no study")])
def test_study_that_is_not_there_is_told(queue: Queue, word: str, told: str) -> None:
    said = queue("show", word)
    assert said.code == 2
    assert told in said.err


def test_name_of_two_studies_is_not_enough(queue: Queue, data: DataFolder) -> None:
    with closing(database_of(data)) as connection:
        connection.execute("UPDATE study SET pseudonym = 'dead111111111111' WHERE study_uid = '1.2.2'")
    said = queue("retry", "dead")
    assert said.code == 2
    assert f"{DEAD}, dead111111111111" in said.err
    assert rows(data, "SELECT count(*) FROM job WHERE state = 'dead'") == [(1,)]


def test_retry_brings_dead_jobs_and_parcels_back(queue: Queue, data: DataFolder) -> None:
    said = queue("retry", DEAD, UNDELIVERED)
    assert (said.code, said.out) == (0, f"{DEAD}  job 1 retried\n{UNDELIVERED}  delivery 1 retried\n")
    assert rows(data, "SELECT state, attempts FROM job WHERE id = 1") == [("ready", 0)]
    assert rows(data, "SELECT state, attempts FROM parcel") == [("pending", 0)]
    assert rows(data, "SELECT state FROM parcel_object") == [("pending",)]
    audited = [json.loads(line) for path in data.audit.iterdir() for line in path.read_text().splitlines()]
    assert [line["event"] for line in audited] == ["job_retried", "parcel_retried"]
    assert "1.2.0" not in json.dumps(audited)


def test_retry_of_what_is_not_dead_changes_nothing(queue: Queue, data: DataFolder) -> None:
    before = rows(data, "SELECT * FROM job")
    said = queue("retry", WAITING)
    assert (said.code, said.err) == (1, "nothing was retried: there is no dead job and nothing undelivered\n")
    assert rows(data, "SELECT * FROM job") == before


def pending(data: DataFolder) -> None:
    with closing(database_of(data)) as connection:
        connection.execute("UPDATE parcel SET state = 'pending', next_try = 1e9")


def test_retry_takes_what_waits_for_its_target(queue: Queue, data: DataFolder) -> None:
    pending(data)
    said = queue("retry", UNDELIVERED)
    assert said.out == f"{UNDELIVERED}  delivery 1 retried\n"
    assert said.err == "target pacs is not configured: nothing is sent to it until [[targets]] has it\n"
    with closing(database_of(data)) as connection:
        assert deliveries.take_retry_request(connection, "pacs")


def test_discard_of_a_study_leaves_what_waits(queue: Queue, data: DataFolder) -> None:
    pending(data)
    assert queue("discard", "--yes", UNDELIVERED).code == 1
    assert rows(data, "SELECT state FROM parcel") == [("pending",)]


@pytest.mark.parametrize("state", ["dead", "pending"])
def test_all_of_a_target_that_is_gone_is_discarded(queue: Queue, data: DataFolder, state: str) -> None:
    if state == "pending":
        pending(data)
    said = queue("discard", "--yes", "--target", "pacs")
    assert (said.code, said.out) == (0, f"{UNDELIVERED}  delivery 1 discarded\n")
    assert rows(data, "SELECT state FROM parcel") == [("discarded",)]
    assert rows(data, "SELECT state FROM job WHERE id = 1") == [("dead",)]


def test_of_the_studies_named_only_what_goes_to_the_target(queue: Queue, data: DataFolder) -> None:
    assert queue("retry", "--target", "pacs", DEAD).code == 1
    assert rows(data, "SELECT state FROM job WHERE id = 1") == [("dead",)]
    assert queue("retry", "--target", "pacs", DEAD, UNDELIVERED).out == f"{UNDELIVERED}  delivery 1 retried\n"


@pytest.mark.parametrize(
    ("words", "told"), [((), "expected a STUDY"), (("--target", "pax"), "'pax': expected one of pacs")]
)
def test_retry_of_nothing_in_particular_is_told(queue: Queue, words: tuple[str, ...], told: str) -> None:
    said = queue("retry", *words)
    assert said.code == 2
    assert told in said.err


def test_a_target_before_any_had_results_is_told(queue: Queue, data: DataFolder) -> None:
    with closing(database_of(data)) as connection, transaction(connection):
        connection.execute("DELETE FROM parcel_object")
        connection.execute("DELETE FROM parcel")
    said = queue("retry", "--target", "nope")
    assert said.code == 2
    assert "there were never results for a target 'nope': no target has had results yet; check --target" in said.err


def test_one_wrong_name_leaves_all_as_it_is(queue: Queue, data: DataFolder) -> None:
    assert queue("discard", "--yes", DEAD, "beef").code == 2
    assert rows(data, "SELECT state FROM job WHERE id = 1") == [("dead",)]


@pytest.mark.parametrize(("answer", "code", "state"), [("y\n", 0, "discarded"), ("n\n", 1, "dead"), ("", 130, "dead")])
def test_discard_asks(start: Start, data: DataFolder, answer: str, code: int, state: str) -> None:
    config = data.root.parent / "glam.toml"
    process = start("queue", "discard", DEAD, "--config", config, code=PLAIN, stdin=-1)
    process.communicate(answer)
    assert process.returncode == code
    assert rows(data, "SELECT state FROM job WHERE id = 1") == [(state,)]


def test_discard_gives_up_and_deletes_nothing(queue: Queue, data: DataFolder) -> None:
    before = rows(data, "SELECT count(*) FROM instance"), sorted(data.root.rglob("*.dcm"))
    said = queue("discard", "--yes", DEAD, UNDELIVERED)
    assert said.code == 0
    assert rows(data, "SELECT state FROM job WHERE id = 1") == [("discarded",)]
    assert rows(data, "SELECT state FROM parcel") == [("discarded",)]
    assert (rows(data, "SELECT count(*) FROM instance"), sorted(data.root.rglob("*.dcm"))) == before
    assert DEAD not in queue("list").out


def test_appliance_that_never_ran_has_no_queue(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "glam.toml").write_text(CONFIG)
    said = cli("queue", "list", "--config", tmp_path / "glam.toml")
    assert said.code == 2
    assert "start the appliance with this configuration first" in said.err
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_user_whose_files_the_appliance_could_not_use_is_sent_away(queue: Queue, data: DataFolder) -> None:
    os.chown(data.root, NOBODY, -1)
    said = queue("list")
    assert said.code == 2
    assert re.search(r"belongs to (nobody|#65534), but this process runs as root.* sudo -u (nobody|#65534)", said.err)

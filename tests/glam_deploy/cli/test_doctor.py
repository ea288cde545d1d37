"""`doctor`: what it finds, in which words, and that it changes nothing."""

import json
import os
import socket
import sqlite3
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
from pydicom.uid import MammographyCADSRStorage, SecondaryCaptureImageStorage
from support.bundles import unprivileged
from support.commands import Cli
from support.decoders import RISCV
from support.outbox import opened_outbox
from support.pacs import PLAIN, FakePacs
from support.receive import box, close_sockets, running_receiver
from support.tiny_bundle import write_tiny_bundle

from glam_deploy.appliance.config import Config, parse_config
from glam_deploy.appliance.state.database import monotonic_clock, record_heartbeat
from glam_deploy.cli.doctor import findings
from glam_deploy.decoding import view_reader
from glam_deploy.dicom.results.kinds import KINDS

Found = dict[str, tuple[str, str]]
"""What was looked at -> (state, what was found)."""

TESTS = Path(__file__).parents[1]
CONFIG = """
license_acknowledged = true
data = "data"
[receive]
port = 0
reserve_bytes = 0
senders = [{{ ae_title = "MODALITY", hosts = ["{hosts}"] }}]
[web]
port = 0
token_file = "web.token"
[worker]
bundle = "bundle"
engine = "onnx"
"""


@pytest.fixture(autouse=True)
def sockets_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    close_sockets(monkeypatch)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a configuration and its bundle."""
    write_tiny_bundle(tmp_path / "bundle")
    return configured(tmp_path)


def configured(folder: Path, more: str = "", hosts: str = "127.0.0.1") -> Path:
    token = folder / "web.token"
    token.write_text("t" * 32)
    token.chmod(0o600)
    (folder / "glam.toml").write_text(CONFIG.format(hosts=hosts) + more)
    return folder


def config_in(place: Path) -> Config:
    return parse_config((place / "glam.toml").read_text(), folder=place)


def looked(cli: Cli, place: Path) -> tuple[int, Found]:
    said = cli("doctor", "--json", "--config", place / "glam.toml")
    findings = json.loads(said.out)
    assert all(finding["remedy"] for finding in findings if finding["state"] != "ok")
    return said.code, {finding["what"]: (finding["state"], finding["found"]) for finding in findings}


def test_before_the_first_start_it_makes_nothing(cli: Cli, place: Path) -> None:
    code, found = looked(cli, place)
    assert code == 0
    assert found["data folder"][0] == found["processes"][0] == found["targets"][0] == "note"
    assert found["bundle"][0] == "ok"
    assert found["engine"] == ("ok", "onnx, the reference itself")
    assert sorted(path.name for path in place.iterdir()) == ["bundle", "glam.toml", "web.token"]


def test_the_limits_of_decoders(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = looked(cli, place)
    assert found["decoder"] == (
        "ok",
        "a process with limits of memory, time and files, and with a filter of system calls",
    )
    monkeypatch.setattr(view_reader, "_PROGRAM", RISCV)
    code, found = looked(cli, place)
    text = "limits of memory and time, but no filter of system calls (no filter for the processor riscv64)"
    assert (code, found["decoder"]) == (0, ("note", text))
    monkeypatch.setattr(view_reader, "_PROGRAM", "raise SystemExit(3)")
    code, found = looked(cli, place)
    assert code == 1
    assert found["decoder"] == ("FAILS", "the process for decoders ended with exit code 3 before it was ready")


def test_a_table_for_people(cli: Cli, place: Path) -> None:
    said = cli("doctor", "--config", place / "glam.toml")
    assert said.code == 0
    assert "the reference itself" in said.out


def test_a_running_receiver_answers(cli: Cli, place: Path) -> None:
    with running_receiver(config_in(place)) as (port,):
        code, found = looked(cli, place)
        assert found[f"dicom port {port}"] == ("ok", "GLAM at 127.0.0.1 answers a C-ECHO from MODALITY")
    assert code == 1
    assert found["database"][0] == "ok"
    assert found["processes"] == ("ok", "receiver ready")


def test_a_receiver_that_nobody_here_may_call(cli: Cli, place: Path) -> None:
    with running_receiver(config_in(configured(place, hosts="10.1.2.3"))) as (port,):
        _, found = looked(cli, place)
    assert found[f"dicom port {port}"][0] == "ok"
    assert "no C-ECHO sent" in found[f"dicom port {port}"][1]


@pytest.mark.parametrize("hosts", ["127.0.0.1", "10.1.2.3"])
def test_its_own_check_is_no_rejected_association(cli: Cli, place: Path, hosts: str) -> None:
    config = config_in(configured(place, hosts=hosts))
    with running_receiver(config):
        for _ in range(2):
            _, found = looked(cli, place)
            assert "rejected" not in found
    with closing(sqlite3.connect(config.data / "state.db")) as connection:
        assert connection.execute("SELECT * FROM refusal").fetchall() == []


def test_a_port_that_another_program_has(cli: Cli, place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (place / "glam.toml").write_text(CONFIG.format(hosts="::1").replace("port = 0", f"port = {port}", 1))
        code, found = looked(cli, place)
    assert code == 1
    assert found[f"dicom port {port}"] == ("FAILS", "127.0.0.1: another program uses it")


def test_an_address_of_another_machine(cli: Cli, place: Path) -> None:
    (place / "glam.toml").write_text(CONFIG.format(hosts="::1").replace("[web]\n", '[web]\nhost = "192.0.2.7"\n'))
    said = cli("doctor", "--json", "--config", place / "glam.toml")
    (finding,) = (each for each in json.loads(said.out) if each["what"] == "web port 0")
    assert (said.code, finding["state"]) == (1, "FAILS")
    assert "set `host` to an address of this machine" in finding["remedy"]


def test_a_token_that_everybody_can_read(cli: Cli, place: Path) -> None:
    (place / "web.token").chmod(0o644)
    code, found = looked(cli, place)
    assert code == 1
    assert found["web"][0] == "FAILS"
    assert "web.token" in found["web"][1]


def test_rights_on_the_data_folder(cli: Cli, place: Path) -> None:
    (place / "data").mkdir()
    (place / "data").chmod(0o755)
    code, found = looked(cli, place)
    assert (code, found["data folder"][0]) == (1, "FAILS")
    assert "other users can read" in found["data folder"][1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_data_folder_of_somebody_else_is_left_alone(cli: Cli, place: Path) -> None:
    with box(config_in(place)) as inbox:
        root = inbox.data.root
    before = sorted(path.name for path in root.iterdir())
    os.chown(root, 65534, 65534)
    code, found = looked(cli, place)
    assert (code, found["data folder"][0]) == (1, "FAILS")
    assert "belongs to nobody, but this process runs as root" in found["data folder"][1]
    said = cli("doctor", "--ready", "--config", place / "glam.toml")
    assert said.code == 1 and "belongs to nobody, but this process runs as root" in said.out
    assert sorted(path.name for path in root.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_data_folder_out_of_reach(cli: Cli, place: Path) -> None:
    looked(cli, place)  # imports what only root may read
    config = config_in(place).model_copy(update={"data": place / "closed/data"})
    (place / "closed").mkdir(mode=0o700)
    with unprivileged():
        found = {each.what: each for each in islice(findings(config), 2)}
    assert "closed/data cannot be reached (Permission denied)" in found["data folder"].found
    assert found["disk"].state == "ok"


def test_damaged_files_of_the_identity(cli: Cli, place: Path) -> None:
    with box(config_in(place)) as inbox:
        inbox.ingest.audit.write("received")
    _, found = looked(cli, place)
    assert "identity" not in found
    (place / "data/device.uid").write_text("x")
    (place / "data/audit.key").unlink()
    said = cli("doctor", "--json", "--config", place / "glam.toml")
    told = [each["found"] for each in json.loads(said.out) if (each["state"], each["what"]) == ("FAILS", "identity")]
    assert said.code == 1 and "audit.key is gone" in told[0] and "device.uid holds no UID" in told[1]
    assert not (place / "data/audit.key").exists()


def test_a_disk_below_its_watermark(cli: Cli, place: Path) -> None:
    text = (place / "glam.toml").read_text().replace("reserve_bytes = 0", f"reserve_bytes = {1 << 60}")
    (place / "glam.toml").write_text(text)
    code, found = looked(cli, place)
    assert (code, found["disk"][0]) == (1, "FAILS")


def test_a_clock_that_was_set_back(cli: Cli, place: Path) -> None:
    with box(config_in(place)) as inbox, sqlite3.connect(inbox.data.database) as connection:
        late = (time.time() + 7200,)
        connection.execute("INSERT INTO component (name, state, beat, at) VALUES ('target:old', 'ready', 0, ?)", late)
    connection.close()
    code, found = looked(cli, place)
    assert (code, found["clock"][0]) == (1, "FAILS")


def test_a_process_that_has_fallen_silent(cli: Cli, place: Path) -> None:
    with box(config_in(place)) as inbox, sqlite3.connect(inbox.data.database) as connection:
        ago = {"web": 0, "keeper": 40}
        for name, age in ago.items():
            record_heartbeat(connection, lambda age=age: monotonic_clock(connection)() - age, name, "ready", {})  # type: ignore[misc]
    connection.close()
    said = cli("doctor", "--json", "--config", place / "glam.toml")
    told = [finding["found"] for finding in json.loads(said.out) if finding["what"] == "processes"]
    assert "keeper has written no heartbeat for 40 s: it has ended" in told
    assert "worker never ran" in told
    assert "web ready" in told


def test_a_data_folder_that_is_a_file(cli: Cli, place: Path) -> None:
    (place / "data").write_text("")
    _, found = looked(cli, place)
    assert found["data folder"] == ("FAILS", f"{place / 'data'} is not a folder")


def test_a_data_folder_of_other_programs(cli: Cli, place: Path) -> None:
    (place / "data").mkdir(mode=0o700)
    (place / "data/passwd").touch()
    code, found = looked(cli, place)
    told = f"{place / 'data'} holds 'passwd' and no state.db: it is not the appliance's"
    assert (code, found["data folder"]) == (1, ("FAILS", told))
    assert [path.name for path in (place / "data").iterdir()] == ["passwd"]


def test_a_damaged_bundle(cli: Cli, place: Path) -> None:
    graph = next((place / "bundle/graphs").iterdir())
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    code, found = looked(cli, place)
    assert (code, found["bundle"][0], "engine" in found) == (1, "FAILS", False)


def test_an_engine_that_cannot_be_opened(cli: Cli, place: Path) -> None:
    text = (place / "glam.toml").read_text().replace('"onnx"', '"openvino"')
    (place / "glam.toml").write_text(text)
    code, found = looked(cli, place)
    assert (code, found["engine"][0]) == (1, "FAILS")


def test_targets_that_answer_and_that_do_not(cli: Cli, place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()[1]
    target = '[[targets]]\nname = "{}"\nae_title = "{}"\nhost = "127.0.0.1"\nport = {}\ncalling_ae_title = "MODALITY"\n'
    target += "query = false\n"
    with running_receiver(config_in(place)) as (port,):
        more = target.format("alive", "GLAM", port) + target.format("dead", "PACS", dead)
        code, found = looked(cli, configured(place, more))
    assert code == 1
    assert found["target alive"][0] == "ok"
    assert "called as MODALITY from 127.0.0.1" in found["target alive"][1]
    assert found["target dead"][0] == "FAILS"
    assert (
        f"PACS at 127.0.0.1 port {dead} cannot be reached: no connection (Connection refused)"
        == found["target dead"][1]
    )


TARGET = '[[targets]]\nname = "pacs"\nae_title = "FAKEPACS"\nhost = "127.0.0.1"\nport = {}\n'


def test_what_a_target_does_not_accept_is_named_with_the_keys_that_leave_it_out(cli: Cli, place: Path) -> None:
    """Pictures are offered uncompressed too, which is all that this PACS takes."""
    accepted = (MammographyCADSRStorage, SecondaryCaptureImageStorage)
    with FakePacs(classes=accepted, syntaxes=PLAIN, finds=False).running() as pacs:
        configured(place, TARGET.format(pacs.port))
        said = cli("doctor", "--json", "--config", place / "glam.toml")
        (finding,) = (each for each in json.loads(said.out) if each["what"] == "target pacs")
        keys = 'objects = ["cad_sr", "sc"], query = false'
        assert (said.code, finding["state"]) == (1, "FAILS")
        assert finding["found"] == (
            f"FAKEPACS at 127.0.0.1 port {pacs.port} answers, but does not accept from GLAM: Segmentation Storage, "
            "Comprehensive SR Storage, Study Root Query/Retrieve Information Model - FIND"
        )
        assert finding["remedy"] == f"allow it there, or set {keys} for this target"
        configured(place, TARGET.format(pacs.port) + keys.replace(", query", "\nquery") + "\n")
        _, found = looked(cli, place)
    assert found["target pacs"][0] == "ok"
    assert "answers and accepts cad_sr, sc" in found["target pacs"][1]


def test_a_target_without_storage_commitment(cli: Cli, place: Path) -> None:
    accepted = [kind.sop_class for kind in KINDS.values()]
    with FakePacs(classes=accepted).running() as pacs:
        _, found = looked(cli, configured(place, TARGET.format(pacs.port) + "commitment = true\n"))
    assert found["target pacs"][0] == "FAILS"
    assert "does not accept from GLAM: Storage Commitment Push Model" in found["target pacs"][1]


def test_a_target_that_is_this_appliance_itself(cli: Cli, place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configured(place, f'[[targets]]\nname = "self"\nae_title = "PACS"\nhost = "localhost"\nport = {port}\n')
    (place / "glam.toml").write_text((place / "glam.toml").read_text().replace("port = 0", f"port = {port}", 1))
    _, found = looked(cli, place)
    assert found["target self"][0] == "FAILS"
    assert "is this appliance itself" in found["target self"][1]


def test_results_for_a_target_that_was_taken_away(cli: Cli, place: Path) -> None:
    with opened_outbox(place / "data") as outbox:
        for study in ("1.2.3", "1.2.4"):
            outbox.post(study, "old", count=1)
    said = cli("doctor", "--json", "--config", place / "glam.toml")
    (finding,) = (each for each in json.loads(said.out) if each["what"] == "target old")
    assert (finding["state"], finding["found"][:22]) == ("note", "2 result sets wait for")
    assert "glam-deploy queue discard --target old" in finding["remedy"]


def test_a_listener_at_a_name(cli: Cli, place: Path) -> None:
    text = (place / "glam.toml").read_text().replace("[receive]", '[receive]\nhost = "localhost"')
    (place / "glam.toml").write_text(text)
    with running_receiver(config_in(place)) as (port,):
        _, found = looked(cli, place)
    assert found[f"dicom port {port}"] == ("ok", "GLAM at localhost answers a C-ECHO from MODALITY")


def test_who_was_turned_away_is_told(cli: Cli, place: Path) -> None:
    with box(config_in(place)) as inbox:
        for _ in range(3):
            inbox.ingest.audit.write("association_rejected", sender="MG2@10.1.2.3", reason="no sender")
    _, found = looked(cli, place)
    assert found["rejected"] == ("note", "MG2@10.1.2.3, 3 times today: no sender")


def test_a_rule_for_a_sender_that_may_not_send(cli: Cli, place: Path) -> None:
    _, found = looked(cli, configured(place, '[priority]\nstat_senders = ["MODALITY", "STAT"]\n'))
    assert found["senders"] == (
        "note",
        "priority.stat_senders names STAT, which is in no [[receive.senders]] and may not send",
    )


@pytest.mark.parametrize(("version", "dump"), [(1, "state_0_1_0.sql"), (2, "state_version_2.sql")])
def test_a_database_that_the_first_start_converts(cli: Cli, place: Path, version: int, dump: str) -> None:
    (place / "data").mkdir(mode=0o700)
    with closing(sqlite3.connect(place / "data/state.db")) as connection:
        connection.executescript((TESTS / "appliance/state" / dump).read_text("utf-8"))
    said = cli("doctor", "--json", "--config", place / "glam.toml")
    found = [(each["state"], each["found"]) for each in json.loads(said.out) if each["what"] == "database"]
    path = place / "data/state.db"
    early = f"{path} is of an earlier release (version {version}), so that not all of it is read here"
    assert found == [("ok", f"{path} is sound"), ("note", early)]
    assert f"converts it and keeps state.db.version-{version} beside it" in said.out


def test_a_damaged_database(cli: Cli, place: Path) -> None:
    (place / "data").mkdir(mode=0o700)
    (place / "data/state.db").write_bytes(b"no database" * 1000)
    code, found = looked(cli, place)
    assert (code, found["database"][0]) == (1, "FAILS")
    assert "is damaged (file is not a database)" in found["database"][1]

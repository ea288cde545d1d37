"""The role as a whole: senders at its ports, what it says of itself, and what it never says."""

import json
import logging
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from support.backups import spoil_table
from support.certificates import Authority
from support.receive import CANARY, Box, box, close_sockets, config_of, same_rows_and_files, write_exam
from support.until import until

from glam_deploy.appliance import receiver
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.state import database
from glam_deploy.appliance.state.soundness import require_undamaged
from glam_deploy.appliance.web.monitoring import assess
from glam_deploy.dicom.net.listener import AuditEvent
from glam_deploy.dicom.net.peer import Peer, TlsFiles
from glam_deploy.dicom.net.sender import echo
from glam_deploy.errors import PeerError, UsageError

MG = "1.2.840.10008.5.1.4.1.1.1.2"


@pytest.fixture(autouse=True)
def sockets_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    close_sockets(monkeypatch)


def word(here: Box) -> tuple[str, dict[str, Any]] | None:
    """The receiver's last."""
    rows = here.rows("SELECT state, detail FROM component WHERE name = 'receiver'")
    return (rows[0][0], json.loads(rows[0][1])) if rows else None


@contextmanager
def running(config: Config) -> Iterator[tuple[Box, dict[str, int]]]:
    """The receiver in a thread; its ports."""
    stop = threading.Event()
    with box(config) as here:
        thread = threading.Thread(target=receiver.run, args=(config, stop))
        thread.start()
        try:
            until(lambda: word(here) is not None)
            yield here, word(here)[1]["ports"]
        finally:
            stop.set()
            thread.join()


def send(port: int, paths: list[Path], title: str = "STORESCU") -> list[int]:
    sender = AE(title)
    sender.add_requested_context(MG)
    association = sender.associate("127.0.0.1", port, ae_title="GLAM")
    statuses = [association.send_c_store(path).Status for path in paths]
    association.release()
    return statuses


def test_hosts_as_sockets_of_ipv6_show_them(tmp_path: Path) -> None:
    senders = [{"ae_title": "STORESCU", "hosts": ["::ffff:127.0.0.1"]}]
    with running(config_of(tmp_path, senders=senders, host="::ffff:127.0.0.1")) as (here, ports):
        assert send(ports["dicom"], write_exam(tmp_path)) == [0] * 4
        assert {line["sender"] for line in here.audit("received")} == {"STORESCU@127.0.0.1"}


def test_senders_at_once(tmp_path: Path) -> None:
    exams = [write_exam(tmp_path, seed=str(number)) for number in range(4)]
    statuses: list[int] = []
    with running(config_of(tmp_path)) as (here, ports):
        threads = [
            threading.Thread(target=lambda exam=exam: statuses.extend(send(ports["dicom"], exam)))
            for exam in (*exams, *exams)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [0] * 32
        assert same_rows_and_files(here) == 16
        assert len(here.audit("received")) == 16
        assert {line["sender"] for line in here.audit("received")} == {"STORESCU@127.0.0.1"}
        until(lambda: word(here) == ("ready", word(here)[1] | {"associations": 0}))


def test_the_patients_name_is_in_no_log_audit_or_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    first, second = write_exam(tmp_path, seed="a")[:2]
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(second.read_bytes().replace(b"MONOCHROME2", CANARY.encode()))
    other = tmp_path / "other.dcm"
    other.write_bytes(first.read_bytes()[:-2] + b"xx")
    with running(config_of(tmp_path)) as (here, ports):
        assert send(ports["dicom"], [first, other, damaged]) == [0, 0xC111, 0]
        with pytest.raises(PeerError):
            echo(Peer(ae_title="GLAM", host="127.0.0.1", port=ports["dicom"], calling_ae_title="ROGUE"))
        until(lambda: bool(here.audit("association_rejected")))
        refused = "SELECT sender, code, times, reason FROM refusal WHERE code = 'association'"
        until(lambda: bool(here.rows(refused)))
        assert here.rows(refused) == [
            ("ROGUE@127.0.0.1", "association", 1, "no configured sender has this AE title at this address")
        ]
        assert [line["state"] for line in here.audit("received")] == ["candidate", "refused"]
    said = [path for path in here.data.root.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert {path.name for path in said} >= {"state.db", "audit.key"}
    assert [path for path in said if b"CANARY" in path.read_bytes()] == []
    assert "CANARY" not in caplog.text


def test_names_without_end_are_counted_in_bounded_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "MOST_REFUSALS", 3)
    counter = receiver.RejectionCounter()
    for number in range(10):
        counter.add(AuditEvent(event="rejected", sender=f"ROGUE{number}@10.0.0.9", reason="unknown", times=2))
    with box(config_of(tmp_path)) as here:
        for _ in range(2):  # the second time there is nothing left
            counter.write(here.ingest)
        found = here.rows("SELECT sender, times FROM refusal ORDER BY sender")
    assert found == [("", 14), *((f"ROGUE{number}@10.0.0.9", 2) for number in range(3))]


def item(kind: int, content: bytes) -> bytes:
    """An item of an A-ASSOCIATE-RQ (PS3.8 section 9.3.2)."""
    return bytes([kind, 0]) + len(content).to_bytes(2, "big") + content


def association_request(contexts: int = 1, calling: bytes = b"STORESCU") -> bytes:
    syntaxes = item(0x30, MG.encode()) + item(0x40, b"1.2.840.10008.1.2.1")
    offered = [item(0x20, bytes([(2 * n + 1) % 256, 0, 0, 0]) + syntaxes) for n in range(contexts)]
    user = item(0x50, item(0x51, (16384).to_bytes(4, "big")) + item(0x52, b"1.2.3"))
    titles = b"GLAM".ljust(16) + calling.ljust(16)
    body = b"\0\1\0\0" + titles + bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1") + b"".join(offered) + user
    return b"\1\0" + len(body).to_bytes(4, "big") + body


MALFORMED = {
    association_request(200): "200 presentation contexts",
    b"\1\0\xff\xff\xff\xff" + bytes(100): "a PDU of 4294967295 bytes",
    b"\4\0\0\0\0\6\0\0\0\2\1\3": "the first PDU is not an association request",
    association_request(calling=b"STORESCU\0"): "",
    association_request(calling=b"P\xe4"): "",
}


def test_malformed_requests_are_audited_and_counted(tmp_path: Path) -> None:
    with running(config_of(tmp_path)) as (here, ports):
        for request in (*MALFORMED, *MALFORMED):
            with socket.create_connection(("127.0.0.1", ports["dicom"]), 20) as peer:
                peer.sendall(request)
                assert peer.recv(100)[0] in (3, 7)  # A-ASSOCIATE-RJ, A-ABORT
        counted = "SELECT sum(times) FROM refusal WHERE code = 'association'"
        until(lambda: here.rows(counted) == [(2 * len(MALFORMED),)])
        reasons = [line["reason"] for line in here.audit("association_rejected")]
    print(reasons)
    for reason in MALFORMED.values():
        assert [told for told in reasons if reason in told]
    assert len(set(reasons)) >= 4
    assert not here.audit("association_aborted")


def test_both_listeners(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    names = ("listener", "modality")
    own, theirs = (
        {"certificate": certificate, "key": key, "authority": authority.authority}
        for certificate, key in map(authority.sign, names)
    )
    config = config_of(tmp_path, tls=own | {"port": 0})
    with running(config) as (_, ports):
        assert set(ports) == {"dicom", "dicom-tls"}
        peer = {"ae_title": "GLAM", "host": "127.0.0.1", "calling_ae_title": "STORESCU"}
        assert echo(Peer(port=ports["dicom"], **peer)) > 0
        assert echo(Peer(port=ports["dicom-tls"], tls=TlsFiles(**theirs), **peer)) > 0
        with pytest.raises(PeerError):
            echo(Peer(port=ports["dicom-tls"], **peer))


def test_only_the_secure_listener(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path / "tls").sign("listener")
    tls = {"certificate": certificate, "key": key, "authority": tmp_path / "tls/authority.crt", "port": 0}
    with running(config_of(tmp_path, port=None, tls=tls)) as (_, ports):
        assert list(ports) == ["dicom-tls"]


def test_without_room_it_is_not_well_and_says_so_to_senders(tmp_path: Path) -> None:
    exam = write_exam(tmp_path)
    with running(config_of(tmp_path, reserve_bytes=1 << 60)) as (here, ports):
        state, detail = word(here)
        assert (state, detail["reason"]) == ("failing", "the disk has less free space than receive.reserve_bytes")
        assert set(send(ports["dicom"], exam)) == {0xA700}
        assert here.files("spool") == []


def test_a_database_that_takes_nothing_for_a_while_ends_no_association(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def record_heartbeat(*args: Any) -> None:
        said.append("")
        if len(said) < 3:
            raise sqlite3.OperationalError("database or disk is full")
        database.record_heartbeat(*args)

    monkeypatch.setattr(receiver, "record_heartbeat", record_heartbeat)
    monkeypatch.setattr(receiver, "HEARTBEAT_S", 0.01)
    with running(config_of(tmp_path)) as (_, ports):
        assert echo(Peer(ae_title="GLAM", host="127.0.0.1", port=ports["dicom"], calling_ae_title="STORESCU"))
    assert len(said) >= 3


def test_a_damaged_database_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The sender keeps its images; the receiver is not ready any more."""
    config, exam = config_of(tmp_path), write_exam(tmp_path)
    with box(config) as here:
        assert here.take(exam[0].read_bytes()).status == 0
    spoil_table(here.data.database, "instance")
    told = "state.db is damaged (database disk image is malformed): restore a backup"
    with running(config) as (here, ports):
        assert send(ports["dicom"], exam[1:2]) == [0xA700]
        until(lambda: word(here)[0] == "failing" and word(here)[1]["reason"] == told)
        assert here.audit("refused")[-1]["reason"] == f"{told}, and send it again then"
        (receiver_problem,) = (each for each in assess(here.data, 0).reasons if "receiver" in each)
        assert receiver_problem == f"the receiver is failing ({told})"
    assert told in caplog.messages
    with pytest.raises(UsageError, match=r"state\.db is damaged \(.*\): move .* away, and restore a backup"):
        require_undamaged(here.data.database)


def test_a_certificate_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    tls = dict.fromkeys(("certificate", "key", "authority"), tmp_path / "missing")
    with pytest.raises(UsageError, match="PEM files"):
        receiver.run(config_of(tmp_path, tls=tls), threading.Event())

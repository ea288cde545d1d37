"""Sending against pynetdicom's own SCP, dcmtk's storescp, and sockets that say nothing."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pydicom
import pytest
from expected import need
from pydicom.uid import JPEG2000Lossless
from support.certificates import Authority
from support.orthanc import free_port, wait_for
from support.outbox import write_items
from support.pacs import AE_TITLE, PLAIN, FakePacs

from glam_deploy.dicom.net.delivery import Item, Outcome
from glam_deploy.dicom.net.peer import Peer, TlsFiles
from glam_deploy.dicom.net.sender import DimseSession, echo
from glam_deploy.errors import PeerBroke, PeerDeclined, PeerError


def store_one(peer: Peer, item: Item) -> tuple[Outcome, str]:
    with DimseSession(peer, [item]) as session:
        answer = session.store(item)
    assert answer.sop_uid == item.sop_uid
    return answer.outcome, answer.reason


def test_echo() -> None:
    with FakePacs().running() as pacs:
        assert 0 < echo(pacs.peer()) < 5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ae_title": "OTHER"}, "Called AE title not recognised"),
        ({"port": 1}, "Connection refused"),
        ({"host": "no-such-host.invalid"}, "no-such-host.invalid port"),
    ],
)
def test_who_lets_nobody_in_is_told_with_the_reason(changes: dict[str, object], told: str) -> None:
    with FakePacs().running() as pacs, pytest.raises(PeerError, match=told):
        echo(pacs.peer(**changes))


@pytest.mark.parametrize(
    ("status", "outcome", "told"),
    [
        (0x0000, Outcome.STORED, ""),
        (0xB000, Outcome.STORED, "warning 0xB000: coercion of data elements"),
        (0x0111, Outcome.REFUSED, "status 0x0111"),
        (0x0124, Outcome.REFUSED, "not authorized"),
        (0xA700, Outcome.NO_ROOM, "out of resources"),
        (0xA7AB, Outcome.NO_ROOM, "out of resources"),
        (0xA900, Outcome.REFUSED, "does not match the SOP class"),
        (0xC123, Outcome.REFUSED, "cannot understand"),
    ],
)
def test_statuses_are_told_apart(tmp_path: Path, status: int, outcome: Outcome, told: str) -> None:
    (item,) = write_items(tmp_path, "1.2.3", 1)
    with FakePacs(status=status).running() as pacs:
        found, reason = store_one(pacs.peer(), item)
    assert found is outcome
    assert told in reason


def test_the_bytes_of_an_object_arrive_as_they_are(tmp_path: Path) -> None:
    (item,) = write_items(tmp_path, "1.2.3", 1)
    with FakePacs().running() as pacs:
        store_one(pacs.peer(), item)
    assert pacs.held[item.sop_uid] == pydicom.dcmread(item.path)


@pytest.mark.parametrize("syntaxes", [[JPEG2000Lossless, *PLAIN], PLAIN[:1], PLAIN[1:]])
def test_what_a_peer_does_not_decode_is_decompressed_for_it(tmp_path: Path, syntaxes: list[str]) -> None:
    (item,) = write_items(tmp_path, "1.2.3", 1, JPEG2000Lossless)
    with FakePacs(syntaxes=syntaxes).running() as pacs:
        assert store_one(pacs.peer(), item) == (Outcome.STORED, "")
    held = pacs.held[item.sop_uid]
    assert held.file_meta.TransferSyntaxUID == syntaxes[0]
    assert (held.pixel_array == pydicom.dcmread(item.path).pixel_array).all()
    assert held.SOPInstanceUID == item.sop_uid


def test_a_class_that_nobody_takes_is_the_objects_fault(tmp_path: Path) -> None:
    (item,) = write_items(tmp_path, "1.2.3", 1)
    with FakePacs(syntaxes=[JPEG2000Lossless]).running() as pacs:
        found, reason = store_one(pacs.peer(), item)
    assert found is Outcome.REFUSED
    assert "the target accepts no Digital Mammography X-Ray Image Storage" in reason


@pytest.mark.parametrize("damage", ["missing", "no DICOM"])
def test_a_file_that_cannot_be_read_is_refused_without_asking(tmp_path: Path, damage: str) -> None:
    item = Item(sop_uid="1.2.3", path=tmp_path / "a.dcm")
    if damage != "missing":
        item.path.write_bytes(b"x" * 1000)
    with FakePacs().running() as pacs:
        found, reason = store_one(pacs.peer(), item)
    assert (found, pacs.arrivals) == (Outcome.REFUSED, [])
    assert "cannot be read" in reason


def test_query_shows_what_is_there_and_nothing_else(tmp_path: Path) -> None:
    items = write_items(tmp_path, "1.2.3", 3)
    with FakePacs().running() as pacs, DimseSession(pacs.peer(), items, query=True) as session:
        assert session.holds(items) == frozenset()
        for item in items[:2]:
            session.store(item)
        assert session.holds(items) == {item.sop_uid for item in items[:2]}
        assert session.holds(items[1:]) == {items[1].sop_uid}


def test_a_peer_that_answers_no_query_is_told(tmp_path: Path) -> None:
    items = write_items(tmp_path, "1.2.3", 1)
    with (
        FakePacs(finds=False).running() as pacs,
        pytest.raises(PeerDeclined, match="query = false"),
        DimseSession(pacs.peer(), items, query=True) as session,
    ):
        session.holds(items)


@pytest.mark.parametrize("lost", [0, 1])
def test_commitment_is_reported_on_the_same_association(tmp_path: Path, lost: int) -> None:
    items = write_items(tmp_path, "1.2.3", 2)
    with FakePacs(commits="same").running() as pacs, DimseSession(pacs.peer(), items, commitment=True) as session:
        for item in items[lost:]:
            session.store(item)
        report = session.commit(items, "2.25.1", wait_s=10)
    assert report
    assert report.committed == {item.sop_uid for item in items[lost:]}
    assert report.failed == {item.sop_uid for item in items[:lost]}


def test_a_report_that_does_not_come_is_not_awaited_for_ever(tmp_path: Path) -> None:
    items = write_items(tmp_path, "1.2.3", 1)
    with FakePacs(commits="later").running() as pacs, DimseSession(pacs.peer(), items, commitment=True) as session:
        assert session.commit(items, "2.25.1", wait_s=0.05) is None


def test_a_peer_that_commits_to_nothing_is_told(tmp_path: Path) -> None:
    items = write_items(tmp_path, "1.2.3", 1)
    with (
        FakePacs().running() as pacs,
        pytest.raises(PeerDeclined, match="commitment = false"),
        DimseSession(pacs.peer(), items, commitment=True) as session,
    ):
        session.commit(items, "2.25.1", wait_s=1)


def test_an_abort_in_the_middle(tmp_path: Path) -> None:
    (item,) = write_items(tmp_path, "1.2.3", 1)
    with FakePacs(aborts={item.sop_uid}).running() as pacs, pytest.raises(PeerBroke, match="C-STORE"):
        store_one(pacs.peer(), item)


@contextmanager
def silent(serve: object = None) -> Iterator[int]:
    """A port that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_says_nothing_is_given_up() -> None:
    with silent() as port, pytest.raises(PeerError, match="accepts connections, but no association"):
        echo(Peer(ae_title=AE_TITLE, host="127.0.0.1", port=port, timeout_s=0.2))


def test_a_peer_that_stops_reading_in_the_middle_is_given_up(tmp_path: Path) -> None:
    """More bytes than any buffer holds: without a limit on the socket, pynetdicom would wait in `send` for ever."""
    (item,) = write_items(tmp_path, "1.2.3", 1)
    dataset = pydicom.dcmread(item.path)
    dataset.add_new(0x00091001, "OB", bytes(24 << 20))
    dataset.add_new(0x00090010, "LO", "GLAM TEST")
    dataset.save_as(item.path)
    with FakePacs().running() as pacs, _proxy_that_stops(pacs.port) as port, pytest.raises(PeerBroke):
        store_one(pacs.peer(port=port, timeout_s=0.3), item)


@contextmanager
def _proxy_that_stops(port: int) -> Iterator[int]:
    """Lets 100 kB through to `port`, and then nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stopped = threading.Event()
        thread = threading.Thread(target=_relay, args=(server, port, stopped))
        thread.start()
        yield server.getsockname()[1]
        stopped.set()
        thread.join()


def _relay(server: socket.socket, port: int, stopped: threading.Event) -> None:
    ours, _ = server.accept()
    theirs = socket.create_connection(("127.0.0.1", port))

    def back() -> None:
        with suppress(OSError):
            while data := theirs.recv(1 << 16):
                ours.sendall(data)

    threading.Thread(target=back).start()
    left = 100_000
    while left > 0 and (data := ours.recv(4096)):
        theirs.sendall(data)
        left -= len(data)
    stopped.wait(30)
    for connection in (theirs, ours):
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def server_context(authority: Authority, name: str = "pacs") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*authority.sign(name))
    return context


def files(authority: Authority, trusted: Authority | None = None) -> TlsFiles:
    certificate, key = authority.sign("glam")
    return TlsFiles(certificate=certificate, key=key, authority=(trusted or authority).authority)


def test_mutual_tls(authority: Authority, tmp_path: Path) -> None:
    (item,) = write_items(tmp_path, "1.2.3", 1)
    with FakePacs().running(server_context(authority)) as pacs:
        assert store_one(pacs.peer(tls=files(authority)), item) == (Outcome.STORED, "")


def test_a_certificate_of_another_authority_is_not_shown_ours(authority: Authority, tmp_path: Path) -> None:
    rogue = Authority(tmp_path, "rogue")
    with (
        FakePacs().running(server_context(rogue)) as pacs,
        pytest.raises(PeerError, match="certificate is not valid"),
    ):
        echo(pacs.peer(tls=files(authority)))


def test_a_certificate_of_ours_that_they_do_not_know(authority: Authority, tmp_path: Path) -> None:
    rogue = Authority(tmp_path, "rogue")
    with (
        FakePacs().running(server_context(authority)) as pacs,
        pytest.raises(PeerError, match="trusts the certificate of glam-deploy"),
    ):
        echo(pacs.peer(tls=files(rogue, trusted=authority), timeout_s=2))


def test_no_plain_words_to_a_tls_port(authority: Authority) -> None:
    with FakePacs().running(server_context(authority)) as pacs, pytest.raises(PeerError, match="without TLS"):
        echo(pacs.peer(timeout_s=2))


def test_a_key_that_does_not_fit(authority: Authority) -> None:
    good, other = files(authority), Authority(authority.authority.parent / "other")
    wrong = TlsFiles(certificate=good.certificate, key=other.sign("x")[1], authority=good.authority)
    with pytest.raises(PeerError, match="the key of the certificate"):
        echo(Peer(ae_title=AE_TITLE, host="127.0.0.1", port=1, tls=wrong))


def test_dcmtk_receives_what_was_sent(tmp_path: Path) -> None:
    need("dcmtk", "" if shutil.which("storescp") else "storescp")
    items = write_items(tmp_path, "1.2.3", 4)
    received, port = tmp_path / "rx", free_port()
    received.mkdir()
    process = subprocess.Popen(["storescp", "-aet", AE_TITLE, "-od", received, "+xa", str(port)])
    peer = Peer(ae_title=AE_TITLE, host="127.0.0.1", port=port, timeout_s=10)
    try:
        wait_for(lambda: _answers(peer), "storescp to listen")
        with DimseSession(peer, items) as session:
            assert [session.store(item).outcome for item in items] == [Outcome.STORED] * 4
    finally:
        process.terminate()
        process.wait(10)
    found = {str(dataset.SOPInstanceUID): dataset for dataset in map(pydicom.dcmread, received.iterdir())}
    assert {uid: found[uid] for uid in found} == {item.sop_uid: pydicom.dcmread(item.path) for item in items}


def _answers(peer: Peer) -> bool:
    try:
        return echo(peer) > 0
    except PeerError:
        time.sleep(0.02)
        return False

"""The listener and peers that mean no good."""

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pynetdicom.pdu import A_ASSOCIATE_RQ
from support.listener import MG, RULES, Post, Verdict, associated, post
from support.receive import data_set_of
from support.until import until

from glam_deploy.dicom.net.bounded_socket import MAX_PDU
from glam_deploy.dicom.net.listener import Rules

pytestmark = pytest.mark.usefixtures("sockets_are_closed")


def request() -> bytes:
    """An A-ASSOCIATE-RQ that is accepted."""
    sent: list[bytes] = []

    class Catcher(threading.Thread):
        def __init__(self) -> None:
            super().__init__()
            self.server = socket.create_server(("127.0.0.1", 0))

        def run(self) -> None:
            peer, _ = self.server.accept()
            sent.append(peer.recv(1 << 16))
            peer.close()
            self.server.close()

    catcher = Catcher()
    catcher.start()
    associated(catcher.server.getsockname()[1])
    catcher.join()
    A_ASSOCIATE_RQ().decode(sent[0])
    return sent[0]


@contextmanager
def raw(here: Post, *, after_request: bool) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", here.port), 20) as peer:
        if after_request:
            peer.sendall(request())
            assert peer.recv(1 << 16)[0] == 2  # A-ASSOCIATE-AC
        yield peer


def everything(peer: socket.socket) -> bytes:
    """Until the other side closes."""
    answer = b""
    try:
        while more := peer.recv(1 << 16):
            answer += more
    except ConnectionResetError:
        pass
    return answer


@pytest.mark.parametrize("after_request", [False, True])
@pytest.mark.parametrize("length", [MAX_PDU + 1, (1 << 32) - 1])
def test_a_pdu_that_is_too_long(after_request: bool, length: int) -> None:
    rules = Rules(ae_title="GLAM", senders=RULES.senders, max_associations=3, idle_s=1)
    with post(rules) as here, raw(here, after_request=after_request) as peer:
        peer.sendall(bytes([4 if after_request else 1, 0]) + length.to_bytes(4, "big") + bytes(100))
        assert everything(peer)[:10] == bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 6])  # A-ABORT
        event = "aborted" if after_request else "rejected"
        assert here.said(event) == [f"a PDU of {length} bytes, expected up to {MAX_PDU}"]


def test_a_peer_that_sends_half_a_pdu_is_cut_off() -> None:
    rules = Rules(ae_title="GLAM", senders=RULES.senders, max_associations=3, idle_s=0.5)
    with post(rules) as here, raw(here, after_request=True) as peer:
        peer.sendall(bytes([4, 0]) + (1000).to_bytes(4, "big") + bytes(10))
        everything(peer)
        until(lambda: here.listener.associations == 0)
        assert here.said("aborted")


def test_a_peer_that_sends_a_pdu_byte_by_byte_is_cut_off() -> None:
    rules = Rules(ae_title="GLAM", senders=RULES.senders, max_associations=3, idle_s=0.5)
    with post(rules) as here, raw(here, after_request=True) as peer:
        peer.sendall(bytes([4, 0]) + (100_000).to_bytes(4, "big"))
        with pytest.raises(OSError):
            for _ in range(3000):
                peer.sendall(b"\0")
                time.sleep(0.01)
        assert here.said("aborted") == ["no complete PDU was received within receive.idle_s"]


def test_a_silent_association_is_aborted() -> None:
    rules = Rules(ae_title="GLAM", senders=RULES.senders, max_associations=3, idle_s=0.3)
    with post(rules) as here:
        association = associated(here.port)
        until(lambda: here.said("aborted"))
        until(lambda: association.is_aborted)
        assert here.said("aborted") == ["no complete PDU was received within receive.idle_s"]


def pdv(control: int, data: bytes, context: int = 1) -> bytes:
    """A P-DATA-TF PDU of one fragment (PS3.8 annex E)."""
    item = (len(data) + 2).to_bytes(4, "big") + bytes([context, control]) + data
    return bytes([4, 0]) + len(item).to_bytes(4, "big") + item


def test_a_command_without_end_is_not_collected() -> None:
    with post() as here, raw(here, after_request=True) as peer:
        with pytest.raises(OSError):
            for _ in range(1000):
                peer.sendall(pdv(1, bytes(60_000)))
                time.sleep(0.001)
        assert here.said("aborted") == ["a command set of more than 65536 bytes"]


def command(uid: str, message: int) -> bytes:
    """A C-STORE-RQ (PS3.7 section 9.3.1.1), implicit VR little endian."""

    def element(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return (0).to_bytes(2, "little") + number.to_bytes(2, "little") + len(value).to_bytes(4, "little") + value

    def short(value: int) -> bytes:
        return value.to_bytes(2, "little")

    return b"".join(
        [
            element(0x0002, MG.encode()), element(0x0100, short(1)), element(0x0110, short(message)),
            element(0x0700, short(0)), element(0x0800, short(1)), element(0x1000, uid.encode()),
        ]
    )  # fmt: skip


def test_a_path_in_place_of_a_uid_reaches_ingest_as_it_is() -> None:
    """Ingest refuses it in words; see its own tests."""
    with post(verdict=Verdict(0xC000, "no UID")) as here, raw(here, after_request=True) as peer:
        peer.sendall(pdv(3, command("../../etc/passwd", 1)) + pdv(2, b"data"))
        assert peer.recv(1 << 16)[0] == 4
        assert here.uploads[0].claim.sop_uid == "../../etc/passwd"


def test_who_does_not_wait_for_the_answer_gets_one_upload_at_a_time() -> None:
    with post() as here, raw(here, after_request=True) as peer:
        peer.sendall(b"".join(pdv(3, command("1.2.3", n)) + pdv(2, b"data") for n in range(1, 9)))
        answers = b""
        while answers.count(b"\0\0\x20\x01") < 8:  # MessageIDBeingRespondedTo
            answers += peer.recv(1 << 16)
        assert all(upload.left for upload in here.uploads)
        assert 1 <= len(here.uploads) <= 8


def test_who_leaves_in_the_middle_leaves_nothing_open() -> None:
    with post() as here:
        with raw(here, after_request=True) as peer:
            peer.sendall(pdv(3, command("1.2.3", 1)) + pdv(0, b"some"))
            until(lambda: here.uploads and here.uploads[0].data == b"some")
        until(lambda: here.uploads[0].left)
        assert not here.uploads[0].finished
        assert here.said("aborted") == ["the peer aborted the association, or the connection was lost"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_damaged_conversations_harm_nobody_else(image: Path) -> None:
    """Flipped bytes in requests, commands and data; each may end only that one."""
    good, talk = request(), pdv(3, command("1.2.3", 1)) + pdv(2, data_set_of(image.read_bytes())[:2000])
    with post(Rules(ae_title="GLAM", senders=RULES.senders, max_associations=200, idle_s=2)) as here:
        for number in range(100):
            dice = random.Random(number)
            first, second = bytearray(good), bytearray(talk)
            bad, most = (first, len(first)) if number % 4 == 0 else (second, 150)
            for _ in range(dice.randint(1, 4)):
                bad[dice.randrange(most)] = dice.randrange(256)
            with socket.create_connection(("127.0.0.1", here.port), 20) as peer:
                peer.sendall(first)
                peer.settimeout(0.05)
                with suppress(OSError):
                    peer.recv(1 << 16)
                    peer.sendall(second)
                    peer.recv(1 << 16)
        assert len(here.uploads) > 20
        until(lambda: all(upload.left for upload in here.uploads))
        assert associated(here.port).send_c_store(image).Status == 0

"""The listener against pynetdicom, dcmtk and peers that mean no good."""

import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from expected import need
from mammograms import write_mg
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from support_certificates import Authority
from support_receive import close_sockets, data_set_of
from support_until import until

from glam_deploy.dicom.net.associations import MAX_PDU
from glam_deploy.dicom.net.listener import Listener, Rules, Sender, Told, _Door, tls_context
from glam_deploy.dicom.net.peer import TlsFiles
from glam_deploy.dicom.part10 import Claim
from glam_deploy.errors import UsageError

MG = "1.2.840.10008.5.1.4.1.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
RULES = Rules(
    ae_title="GLAM",
    senders=(Sender(ae_title="STORESCU", networks=(ip_network("127.0.0.0/8"),)),),
    max_associations=3,
    idle_s=20,
)


@dataclass(frozen=True)
class Verdict:
    status: int = 0x0000
    reason: str = ""


@dataclass
class Upload:
    """Keeps what comes, and what became of it."""

    sender: str
    claim: Claim
    verdict: Verdict
    data: bytearray = field(default_factory=bytearray)
    writes: list[int] = field(default_factory=list)
    finished: bool = False
    left: bool = False

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_: object) -> None:
        self.left = True

    def write(self, chunk: bytes) -> None:
        self.data += chunk
        self.writes.append(len(chunk))

    def finish(self) -> Verdict:
        self.finished = True
        return self.verdict


class Post:
    """A listener, all that it was given, and all that it told."""

    def __init__(self, rules: Rules = RULES, verdict: Verdict = Verdict()) -> None:
        self.uploads: list[Upload] = []
        self.told: list[Told] = []
        self.verdict = verdict
        self.listener = Listener(rules, begin=self._begin, tell=self.told.append)
        self.port = self.listener.listen("127.0.0.1", 0)

    def _begin(self, sender: str, claim: Claim) -> Upload:
        self.uploads.append(Upload(sender, claim, self.verdict))
        return self.uploads[-1]

    def said(self, event: str) -> list[str]:
        return [told.reason for told in self.told if told.event == event]


@contextmanager
def post(rules: Rules = RULES, verdict: Verdict = Verdict()) -> Iterator[Post]:
    made = Post(rules, verdict)
    try:
        yield made
    finally:
        made.listener.stop()


@pytest.fixture(autouse=True)
def sockets_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    close_sockets(monkeypatch)


def caller(title: str = "STORESCU", *contexts: Any) -> AE:
    made = AE(title)
    made.requested_contexts = list(contexts) or [build_context(MG, ExplicitVRLittleEndian), build_context(VERIFICATION)]
    made.acse_timeout = made.dimse_timeout = made.network_timeout = 20
    return made


def associated(port: int, *, called: str = "GLAM", calling: str = "STORESCU", **options: Any) -> Any:
    return caller(calling).associate("127.0.0.1", port, ae_title=called, **options)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_mg(tmp_path / "image.dcm")


# what is taken


def test_an_object_comes_through_byte_for_byte(image: Path) -> None:
    with post() as here:
        association = associated(here.port)
        assert association.send_c_echo().Status == 0
        assert association.send_c_store(image).Status == 0
        association.release()
        (upload,) = here.uploads
        assert bytes(upload.data) == data_set_of(image.read_bytes())
        sent = dcmread(image)
        assert upload.sender == "STORESCU@127.0.0.1"
        assert upload.claim == Claim(sop_class=MG, sop_uid=sent.SOPInstanceUID, transfer_syntax=ExplicitVRLittleEndian)
        assert (upload.finished, upload.left) == (True, True)
        assert [told.event for told in here.told] == ["accepted", "echo"]
        until(lambda: here.listener.associations == 0)


def test_what_ingest_says_reaches_the_sender(image: Path) -> None:
    reason = "the disk has less room than it must have, and this goes on and on and on"
    with post(verdict=Verdict(0xA700, reason)) as here:
        answer = associated(here.port).send_c_store(image)
        assert (answer.Status, answer.ErrorComment) == (0xA700, reason[:64])


def test_several_objects_in_one_association(tmp_path: Path) -> None:
    with post() as here:
        association = associated(here.port)
        for _ in range(5):
            assert association.send_c_store(write_mg(tmp_path / "a.dcm")).Status == 0
        assert [upload.left for upload in here.uploads] == [True] * 5


def test_contexts() -> None:
    """Any storage class of the standard in any syntax whose pixels lie in the object, what loses nothing first."""
    lossy_and_more = [JPEGBaseline8Bit, JPEGLSLossless, ImplicitVRLittleEndian, ExplicitVRLittleEndian]
    proposed = [
        build_context(MG, lossy_and_more), build_context(MG, lossy_and_more[:2]),
        build_context(MG, JPEGBaseline8Bit), build_context(MG, "1.2.840.10008.1.2.4.94"),
        build_context("1.2.840.10008.5.1.4.1.1.66.7", ExplicitVRLittleEndian),
        build_context("1.2.840.113619.4.27", ExplicitVRLittleEndian),
        build_context("1.2.840.10008.5.1.4.1.2.2.1", ExplicitVRLittleEndian),
    ]  # fmt: skip
    with post() as here:
        association = caller("STORESCU", *proposed).associate("127.0.0.1", here.port, ae_title="GLAM")
        answers = {context.context_id: context.transfer_syntax[0] for context in association.accepted_contexts}
        assert answers == {1: ExplicitVRLittleEndian, 3: JPEGLSLossless, 5: JPEGBaseline8Bit, 9: ExplicitVRLittleEndian}
        association.release()


# who is let in


def rejection(association: Any) -> tuple[int, int, int]:
    assert association.is_rejected
    answer = association.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


@pytest.mark.parametrize(
    ("names", "expected", "words"),
    [
        ({"called": "OTHER"}, (1, 1, 7), "it calls 'OTHER', and this is 'GLAM'"),
        ({"calling": "ROGUE"}, (1, 1, 3), "no sender of the configuration has this AE title at this address"),
        ({"calling": "storescu"}, (1, 1, 3), "no sender"),
    ],
)
def test_names_that_are_not_known(names: dict[str, str], expected: tuple[int, int, int], words: str) -> None:
    with post() as here:
        assert rejection(associated(here.port, **names)) == expected
        until(lambda: here.said("rejected"))
        assert words in here.said("rejected")[0]
        assert here.told[0].sender == f"{names.get('calling', 'STORESCU')}@127.0.0.1"


def test_an_unknown_host_is_not_even_read() -> None:
    senders = (Sender(ae_title="STORESCU", networks=(ip_network("10.1.2.0/24"), ip_network("::1"))),)
    with post(Rules(ae_title="GLAM", senders=senders, max_associations=3, idle_s=20)) as here:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", here.port), 20) as peer:
                assert peer.recv(1) == b""
        assert [(told.event, told.sender) for told in here.told] == [("rejected", "127.0.0.1")]


def test_a_known_name_from_the_host_of_another(image: Path) -> None:
    senders = (
        Sender(ae_title="STORESCU", networks=(ip_network("10.1.2.3"),)),
        Sender(ae_title="OTHER", networks=(ip_network("127.0.0.1"),)),
    )
    with post(Rules(ae_title="GLAM", senders=senders, max_associations=3, idle_s=20)) as here:
        assert rejection(associated(here.port)) == (1, 1, 3)
        assert associated(here.port, calling="OTHER").is_established


@pytest.mark.parametrize(
    ("host", "network", "inside"),
    [
        ("10.1.2.3", "10.1.2.0/24", True), ("10.1.3.3", "10.1.2.0/24", False), ("::1", "::1", True),
        ("::ffff:10.1.2.3", "10.1.2.3", True), ("fe80::1%eth0", "fe80::/10", True), ("::1", "0.0.0.0/0", False),
    ],
)  # fmt: skip
def test_hosts_and_networks(host: str, network: str, inside: bool) -> None:
    door = _Door(Rules(ae_title="GLAM", senders=(Sender(ae_title="A", networks=(ip_network(network),)),),
                       max_associations=1, idle_s=1))  # fmt: skip
    assert door.knows(host) is inside


def test_nobody_is_let_in_when_the_rules_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """pynetdicom passes over what a handler raises."""
    with post() as here:
        monkeypatch.setattr(here.listener._door, "enter", lambda _: 1 / 0)
        assert rejection(associated(here.port)) == (2, 2, 1)
        until(lambda: here.said("rejected"))
        assert "ZeroDivisionError" in here.said("rejected")[0]


def test_no_more_associations_than_allowed() -> None:
    with post(Rules(ae_title="GLAM", senders=RULES.senders, max_associations=12, idle_s=20)) as here:
        first = [associated(here.port) for _ in range(12)]
        assert all(association.is_established for association in first)
        assert here.listener.associations == 12
        assert rejection(associated(here.port)) == (2, 3, 2)
        first[0].release()
        until(lambda: here.listener.associations < 12)
        assert associated(here.port).is_established


def test_connections_that_say_nothing_do_not_pile_up() -> None:
    with post() as here:
        silent = [socket.create_connection(("127.0.0.1", here.port), 20) for _ in range(30)]
        until(lambda: "too many connections (receive.max_associations)" in here.said("rejected"))
        for peer in silent:
            peer.close()


def test_a_port_that_is_taken() -> None:
    with post() as here, pytest.raises(UsageError, match=f"port {here.port} .*in use.*another program"):
        here.listener.listen("127.0.0.1", here.port)


# peers that mean no good


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
        assert here.said("aborted") == [f"a PDU of {length} bytes, expected up to {MAX_PDU}"]


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
        assert here.said("aborted") == ["no whole PDU came for receive.idle_s"]


def test_a_silent_association_is_aborted() -> None:
    rules = Rules(ae_title="GLAM", senders=RULES.senders, max_associations=3, idle_s=0.3)
    with post(rules) as here:
        association = associated(here.port)
        until(lambda: here.said("aborted"))
        until(lambda: association.is_aborted)
        assert here.said("aborted") == ["no whole PDU came for receive.idle_s"]


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
        assert here.said("aborted") == ["it broke off, or its connection is gone"]


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


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def own(authority: Authority, name: str) -> TlsFiles:
    certificate, key = authority.sign(name)
    return TlsFiles(certificate=certificate, key=key, authority=authority.authority)


def client(files: TlsFiles | None, trust: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=trust)
    if files:
        context.load_cert_chain(files.certificate, files.key)
    return context


@pytest.fixture
def secure(authority: Authority) -> Iterator[tuple[Post, int]]:
    with post() as here:
        yield here, here.listener.listen("127.0.0.1", 0, tls=tls_context(own(authority, "listener")))


def test_mutual_tls(secure: tuple[Post, int], authority: Authority, image: Path) -> None:
    here, port = secure
    context = client(own(authority, "modality"), authority.authority)
    association = associated(port, tls_args=(context, "localhost"))
    assert association.send_c_store(image).Status == 0
    association.release()
    assert bytes(here.uploads[0].data) == data_set_of(image.read_bytes())


@pytest.mark.parametrize("kind", ["none", "rogue", "plain"])
def test_without_the_right_certificate(
    secure: tuple[Post, int], authority: Authority, tmp_path: Path, kind: str
) -> None:
    here, port = secure
    files = own(Authority(tmp_path / "rogue"), "modality") if kind == "rogue" else None
    options = {} if kind == "plain" else {"tls_args": (client(files, authority.authority), "localhost")}
    assert not associated(port, **options).is_established
    until(lambda: here.said("rejected"))
    words = {"none": "PEER_DID_NOT_RETURN_A_CERTIFICATE", "rogue": "CERTIFICATE_VERIFY_FAILED", "plain": "TLS"}
    assert words[kind] in here.said("rejected")[0]
    assert here.uploads == []


def test_names_count_over_tls_too(secure: tuple[Post, int], authority: Authority) -> None:
    context = client(own(authority, "modality"), authority.authority)
    association = associated(secure[1], calling="ROGUE", tls_args=(context, "localhost"))
    assert rejection(association) == (1, 1, 3)


def test_an_old_version_of_tls(secure: tuple[Post, int], authority: Authority) -> None:
    context = client(own(authority, "modality"), authority.authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert associated(secure[1], tls_args=(context, "localhost")).is_established
    server = tls_context(own(authority, "listener"))
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2
    assert server.verify_mode == ssl.CERT_REQUIRED


def test_a_handshake_that_never_comes_holds_nobody_up(
    secure: tuple[Post, int], authority: Authority, image: Path
) -> None:
    _, port = secure
    with socket.create_connection(("127.0.0.1", port), 20):
        context = client(own(authority, "modality"), authority.authority)
        assert associated(port, tls_args=(context, "localhost")).send_c_store(image).Status == 0


def test_files_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    files = own(authority, "listener")
    other = Authority(tmp_path).sign("other")
    for certificate, key in ((files.certificate, other[1]), (tmp_path / "missing", files.key)):
        with pytest.raises(UsageError, match="PEM files"):
            tls_context(TlsFiles(certificate=certificate, key=key, authority=files.authority))


# dcmtk


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    need("dcmtk", "" if shutil.which(str(arguments[0])) else arguments[0])
    command = [str(argument) for argument in arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_echoscu() -> None:
    with post() as here:
        names = ["-aet", "STORESCU", "-aec"]
        assert run("echoscu", *names, "GLAM", "127.0.0.1", here.port).returncode == 0
        refused = run("echoscu", *names, "OTHER", "127.0.0.1", here.port)
        assert refused.returncode != 0
        assert "Called AE Title Not Recognized" in refused.stderr


@pytest.mark.parametrize(
    ("syntax", "option"),
    [
        (ImplicitVRLittleEndian, "-xi"), (ExplicitVRLittleEndian, "-xe"), (ExplicitVRBigEndian, "-xb"),
        (DeflatedExplicitVRLittleEndian, "-xd"), (RLELossless, "-xr"), (JPEGLSLossless, "-xt"),
        (JPEG2000Lossless, "-xv"),
    ],
)  # fmt: skip
def test_storescu_in_every_syntax(tmp_path: Path, syntax: str, option: str) -> None:
    path = write_mg(tmp_path / "a.dcm", syntax=syntax)
    with post() as here:
        done = run("storescu", option, "-aet", "STORESCU", "-aec", "GLAM", "127.0.0.1", here.port, path)
        assert done.returncode == 0, done.stderr
        assert here.uploads[0].claim.transfer_syntax == syntax
        if syntax != DeflatedExplicitVRLittleEndian:  # dcmtk deflates anew
            assert dcmread(path).PixelData in bytes(here.uploads[0].data)


def test_dcmsend(tmp_path: Path) -> None:
    paths = [write_mg(tmp_path / f"{n}.dcm", syntax=s) for n, s in enumerate([ExplicitVRLittleEndian, RLELossless])]
    with post() as here:
        done = run("dcmsend", "-aet", "STORESCU", "-aec", "GLAM", "127.0.0.1", here.port, *paths)
        assert done.returncode == 0, done.stderr
        assert len(here.uploads) == 2
        assert all(upload.finished for upload in here.uploads)


def test_storescu_over_tls(secure: tuple[Post, int], authority: Authority, image: Path) -> None:
    here, port = secure
    files = own(authority, "storescu")
    tls = ["+tls", files.key, files.certificate, "+cf", authority.authority, "-rc"]
    done = run("storescu", *tls, "-aet", "STORESCU", "-aec", "GLAM", "localhost", port, image)
    assert done.returncode == 0, done.stderr
    assert here.uploads[0].finished

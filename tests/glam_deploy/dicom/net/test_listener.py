"""The listener against pynetdicom and dcmtk: what it takes, and whom it lets in."""

import socket
import struct
from io import BytesIO
from ipaddress import ip_network
from pathlib import Path

import pytest
from hostile import pdv, store_command, storing
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
from pynetdicom import build_context
from pynetdicom.dsutils import decode
from support.listener import MG, RULES, Verdict, associated, caller, post, rejection, run
from support.receive import data_set_of
from support.until import until

from glam_deploy.dicom.net.listener import AssociationPolicy, Rules, Sender
from glam_deploy.dicom.part10 import Claim
from glam_deploy.errors import UsageError

pytestmark = pytest.mark.usefixtures("sockets_are_closed")

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


@pytest.mark.parametrize("uid", ["1." + "2" * 63, "1" * 129, "", None])
@pytest.mark.parametrize("keyword", ["class", "instance"])
def test_a_command_with_a_uid_that_pynetdicom_does_not_take(image: Path, keyword: str, uid: str | None) -> None:
    """It reaches the ingest as it was sent, is answered, and the association goes on."""
    stated = {"class": MG, "instance": "1.2.3"} | {keyword: uid or ""}
    command = store_command(stated["class"], stated["instance"])
    if uid is None:
        command = without(command, 0x0002 if keyword == "class" else 0x1000)
    with post(verdict=Verdict(0xC000, "no")) as here, socket.create_connection(("127.0.0.1", here.port), 20) as peer:
        peer.sendall(storing(MG.encode()))
        assert peer.recv(1 << 16)[0] == 2
        for _ in range(2):
            peer.sendall(pdv(3, command) + pdv(2, data_set_of(image.read_bytes())[:8000]))
            answer = decode(BytesIO(peer.recv(1 << 16)[12:]), is_implicit_vr=True, is_little_endian=True)
            assert answer.Status == 0xC000
            assert ("AffectedSOPInstanceUID" in answer) == (keyword == "class")
        claims = {(upload.claim.sop_class, upload.claim.sop_uid) for upload in here.uploads}
        assert claims == {(stated["class"], stated["instance"])}
        assert not here.said("aborted")


def without(command: bytes, number: int) -> bytes:
    """A command set without one of its elements."""
    place, kept = 0, b""
    while place < len(command):
        _, element, length = struct.unpack_from("<HHL", command, place)
        kept += command[place : place + 8 + length] if element != number else b""
        place += 8 + length
    return kept


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


@pytest.mark.parametrize(
    ("names", "expected", "words"),
    [
        ({"called": "OTHER"}, (1, 1, 7), "the called AE title is 'OTHER', expected 'GLAM'"),
        ({"calling": "ROGUE"}, (1, 1, 3), "no configured sender has this AE title at this address"),
        ({"calling": "storescu"}, (1, 1, 3), "no configured sender"),
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
    policy = AssociationPolicy(Rules(ae_title="GLAM", senders=(Sender(ae_title="A", networks=(ip_network(network),)),),
                       max_associations=1, idle_s=1))  # fmt: skip
    assert policy.allows_host(host) is inside


def test_senders_of_ipv4_at_a_socket_of_ipv6() -> None:
    with post() as here:
        port = here.listener.listen("::ffff:127.0.0.1", 0)  # as "::", which accepts both, for this machine only
        assert associated(port).is_established
        assert rejection(associated(port, calling="ROGUE")) == (1, 1, 3)
        until(lambda: here.said("rejected"))
        assert {told.sender for told in here.told} == {"STORESCU@127.0.0.1", "ROGUE@127.0.0.1"}


def test_nobody_is_let_in_when_the_rules_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """pynetdicom ignores what a handler raises."""
    with post() as here:
        monkeypatch.setattr(here.listener._policy, "admit", lambda _: 1 / 0)
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
    with post() as here, pytest.raises(UsageError, match=f"port {here.port} .*in use.*stop the program that uses it"):
        here.listener.listen("127.0.0.1", here.port)


def test_an_address_of_another_machine() -> None:
    told = r"cannot listen at 192\.0\.2\.7 port 0 .*: set `host` to an address of this machine"
    with post() as here, pytest.raises(UsageError, match=told):
        here.listener.listen("192.0.2.7", 0)  # RFC 5737


# dcmtk


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

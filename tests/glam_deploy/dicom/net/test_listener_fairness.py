"""The listener when all its associations are taken: another peer gets in, and no C-STORE under way is lost."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from typing import Any

import pytest
from hostile import MG, STORE, pdv, storing
from support.listener import Post, associated, post, rejection
from support.until import until

from glam_deploy.dicom.net.listener import Rules, Sender

pytestmark = pytest.mark.usefixtures("sockets_are_closed")

NAMES = ("STORESCU", "OTHER", "THIRD")
ABORT_BY_USER = bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0])
SUCCESS = b"\x00\x00\x00\x09\x02\x00\x00\x00\x00\x00"
"""Status (0000,0900) of a response, implicit VR little endian (PS3.7 section 9.3.1.2)."""


@contextmanager
def full(most: int) -> Iterator[tuple[Post, list[socket.socket]]]:
    """A listener whose `most` places are taken by STORESCU, in the order of the sockets."""
    senders = tuple(Sender(ae_title=name, networks=(ip_network("127.0.0.0/8"),)) for name in NAMES)
    with post(Rules(ae_title="GLAM", senders=senders, max_associations=most, idle_s=600)) as here, ExitStack() as stack:
        peers = []
        for _ in range(most):
            peers.append(stack.enter_context(socket.create_connection(("127.0.0.1", here.port), 20)))
            peers[-1].sendall(storing(MG.encode()))
            assert peers[-1].recv(1 << 16)[0] == 2  # A-ASSOCIATE-AC
        yield here, peers


def begin_store(here: Post, peer: socket.socket) -> None:
    count = len(here.uploads)
    peer.sendall(pdv(3, STORE) + pdv(0, b"some"))
    until(lambda: len(here.uploads) > count)


def end_store(peer: socket.socket) -> bytes:
    """The answer."""
    peer.sendall(pdv(2, b"rest"))
    return peer.recv(1 << 16)


def refused(here: Post, name: str) -> bool:
    association = associated(here.port, calling=name)
    if association.is_established:
        association.abort()
    return bool(association.is_rejected) and rejection(association) == (2, 3, 2)


def established(here: Post, name: str) -> Any:
    association = associated(here.port, calling=name)
    assert association.is_established
    return association


def test_idle_associations_of_one_peer_lock_out_no_other() -> None:
    with full(25) as (here, peers):
        other = established(here, "OTHER")
        assert other.send_c_echo().Status == 0
        assert here.listener.associations == 25
        assert peers[0].recv(1 << 16) == ABORT_BY_USER
        reason = "idle, aborted to accept OTHER@127.0.0.1 (receive.max_associations)"
        assert here.said("aborted") == [reason]
        until(lambda: peers[0].recv(1 << 16) == b"")  # closed, though the peer keeps its side open
        other.release()


def test_the_places_are_shared_evenly() -> None:
    with full(4) as (here, _):
        assert refused(here, "STORESCU")
        others = [established(here, "OTHER") for _ in range(2)]
        assert refused(here, "OTHER")
        assert refused(here, "STORESCU")
        others.append(established(here, "THIRD"))
        assert here.listener.associations == 4


def test_a_store_under_way_is_never_ended_for_another() -> None:
    with full(2) as (here, (first, second)):
        begin_store(here, first)
        other = established(here, "OTHER")
        assert second.recv(1 << 16) == ABORT_BY_USER
        third = established(here, "THIRD")
        until(lambda: other.is_aborted)
        assert SUCCESS in end_store(first)
        assert here.uploads[0].data == b"somerest"
        assert here.uploads[0].finished
        assert third.send_c_echo().Status == 0


def test_a_peer_is_rejected_where_all_others_store() -> None:
    with full(2) as (here, peers):
        for peer in peers:
            begin_store(here, peer)
        assert refused(here, "OTHER")
        assert [SUCCESS in end_store(peer) for peer in peers] == [True, True]
        assert established(here, "OTHER").is_established


def test_a_command_whose_data_set_is_to_come_is_a_store_under_way() -> None:
    with full(1) as (here, (peer,)):
        peer.sendall(pdv(3, STORE))
        until(lambda: all(each.idle_since is None for each in here.listener._policy.open_associations))
        assert refused(here, "OTHER")
        assert SUCCESS in end_store(peer)


def test_the_association_that_stored_last_is_ended_last() -> None:
    with full(3) as (here, peers):
        for index in (1, 0):
            begin_store(here, peers[index])
            assert SUCCESS in end_store(peers[index])
        for index, name in ((2, "OTHER"), (1, "THIRD")):
            established(here, name)
            assert peers[index].recv(1 << 16) == ABORT_BY_USER

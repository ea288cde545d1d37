"""DICOM targets that answer too slowly, or without an end."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from support.outbox import write_items
from support.pacs import FakePacs

from glam_deploy.dicom.net import client
from glam_deploy.dicom.net.delivery import Item
from glam_deploy.dicom.net.peer import Peer
from glam_deploy.dicom.net.sender import DimseSession
from glam_deploy.errors import PeerBroke, PeerError

pytestmark = pytest.mark.usefixtures("sockets_are_closed")

TIMEOUT_S = 0.6


@contextmanager
def dripping(pacs: FakePacs, after: int) -> Iterator[Peer]:
    """The PACS behind a link that lets `after` bytes of its answers through, and then a byte in 50 ms."""
    server = socket.create_server(("127.0.0.1", 0))
    open_ones: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(work: Callable[..., None], *arguments: object) -> None:
        threads.append(threading.Thread(target=work, args=arguments))
        threads[-1].start()

    def relay(ours: socket.socket) -> None:
        with ours, socket.create_connection(("127.0.0.1", pacs.port)) as theirs:
            open_ones.extend((ours, theirs))
            start(forward, ours, theirs)
            left = after
            with suppress(OSError):
                while data := theirs.recv(left or 1):
                    ours.sendall(data)
                    left = max(0, left - len(data))
                    time.sleep(0 if left else 0.05)

    def forward(ours: socket.socket, theirs: socket.socket) -> None:
        with suppress(OSError):
            while data := ours.recv(1 << 16):
                theirs.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                start(relay, server.accept()[0])

    start(accept)
    try:
        yield replace(pacs.peer(timeout_s=TIMEOUT_S), port=server.getsockname()[1])
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        threads[0].join()
        while any(thread.is_alive() for thread in threads):  # one may just be connecting
            for connection in open_ones:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            time.sleep(0.01)


@pytest.fixture
def item(tmp_path: Path) -> Item:
    return write_items(tmp_path, "1.2.3", 1)[0]


@pytest.mark.parametrize("after", [0, 3, 100, 100_000])
def test_a_pdu_that_drips_is_given_up(item: Item, after: int) -> None:
    """In A-ASSOCIATE-AC, and (100,000 bytes let everything through) not at all."""
    with FakePacs().running() as pacs, dripping(pacs, after) as peer:
        if after == 100_000:
            with DimseSession(replace(peer, timeout_s=20), [item], query=True) as session:
                session.store(item)
                assert session.holds([item])
            return
        with pytest.raises(PeerError, match="cannot be reached"), DimseSession(peer, [item], query=True) as session:
            session.store(item)


def test_an_answer_that_drips_is_given_up(item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    """After as many bytes as the association takes to be accepted."""
    lengths, received = [], client._Transport.recv

    def counted(self: client._Transport, nr_bytes: int) -> bytearray:
        lengths.append(nr_bytes)
        return received(self, nr_bytes)

    with FakePacs().running() as pacs:
        monkeypatch.setattr(client._Transport, "recv", counted)
        with DimseSession(pacs.peer(), [item], query=True):
            accepted = sum(lengths)
        with (
            dripping(pacs, accepted) as peer,
            pytest.raises(PeerBroke, match="C-STORE"),
            DimseSession(peer, [item], query=True) as session,
        ):
            session.store(item)


def test_a_search_without_end_is_given_up(item: Item) -> None:
    class Endless(FakePacs):
        def _find(self, event: object) -> Iterator[tuple[int, Dataset]]:
            while True:
                match = Dataset()
                match.QueryRetrieveLevel, match.SOPInstanceUID = "IMAGE", "1.2.3"
                yield 0xFF00, match
                time.sleep(0.01)

    with (
        Endless().running() as pacs,
        pytest.raises(PeerBroke, match="with more than 10000 matches, or for longer than"),
        DimseSession(pacs.peer(timeout_s=TIMEOUT_S), [item], query=True) as session,
    ):
        session.holds([item])


def test_an_answer_that_is_too_long_is_not_collected(item: Item) -> None:
    class Wordy(FakePacs):
        def _find(self, event: object) -> Iterator[tuple[int, Dataset]]:
            match = Dataset()
            match.QueryRetrieveLevel, match.SOPInstanceUID = "IMAGE", "1.2.3"
            match.TextValue = "x" * (8 << 20)
            yield 0xFF00, match

    with (
        Wordy().running() as pacs,
        pytest.raises(PeerBroke, match="ended the association or did not answer during C-FIND"),
        DimseSession(pacs.peer(timeout_s=5), [item], query=True) as session,
    ):
        session.holds([item])

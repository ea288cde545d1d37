"""Addresses without a head of a Ray cluster are refused at once, and so is a Ray that does not start; needs no Ray."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from glam_deploy.archive import cluster
from glam_deploy.archive.cluster import joined_cluster, local_cluster
from glam_deploy.errors import BackendUnavailable, UsageError


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """Port of a program that answers every connection with these bytes, and of one that never answers with None."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                if answer is not None:
                    connection.sendall(answer)
                connection.recv(1 << 16)
                done.wait()

        done = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            thread.join()


def refusal(address: str) -> str:
    with pytest.raises(UsageError) as caught, joined_cluster(address):
        pass
    return str(caught.value)


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "head:ray", "head:0", "head:65536", ":6379", "auto"])
def test_what_is_no_address(address: str) -> None:
    assert "expected HOST:PORT" in refusal(address)


def test_a_port_at_which_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    told = refusal(f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port} cannot be joined (Connection refused): check host and port" in told


def test_a_host_that_does_not_exist() -> None:
    assert "the host nowhere.invalid is not known" in refusal("nowhere.invalid:6379")  # RFC 2606


def test_another_program_at_the_port() -> None:
    with listener(b"SSH-2.0-OpenSSH_9.6\r\n") as port:
        assert "another program than a head of Ray listens there" in refusal(f"127.0.0.1:{port}")


def test_a_program_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glam_deploy.archive.cluster._ANSWER_S", 0.2)
    with listener(None) as port:
        assert "there was no answer within 0.2 seconds" in refusal(f"127.0.0.1:{port}")


LATE = (
    "The current node timed out during startup. This could happen because some of the raylet failed to startup or the "
    "GCS has become overloaded."
)
"""Of Ray 2.60, `ray/_private/node.py`, which raises it as a plain Exception."""


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception(LATE)  # as Ray

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: None))


@pytest.mark.usefixtures("late")
def test_ray_that_does_not_start_in_time() -> None:
    before = dict(os.environ), signal.getsignal(signal.SIGTERM)
    with pytest.raises(BackendUnavailable) as caught, local_cluster():
        pass
    expected = f"Ray did not start on this machine ({LATE[:-1]}): free memory, processors and space in /tmp, and run"
    assert str(caught.value).startswith(expected)
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.usefixtures("late")
def test_a_cluster_that_does_not_take_this_machine_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_require_head", lambda address: None)
    assert f"the Ray cluster head:6379 cannot be joined ({LATE[:-1]}): check the address" in refusal("head:6379")

"""Addresses at which there is no head of a Ray cluster are refused at once; needs no Ray."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from glam_deploy.archive.cluster import joined_cluster
from glam_deploy.errors import UsageError


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

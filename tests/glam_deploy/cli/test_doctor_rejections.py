"""What `doctor` advises for each kind of peer that the receiver rejects: a key that can allow this peer."""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from support.certificates import Authority
from support.receive import close_sockets, config_of, running_receiver
from support.until import until

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.cli.doctor_rejections import rejections


@pytest.fixture(autouse=True)
def sockets_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    close_sockets(monkeypatch)


def rejected(config: Config, call: Callable[[int], object]) -> tuple[str, str]:
    """What was found and the remedy, for the only peer that was rejected; `call` gets the port."""
    data = DataFolder(root=config.data)
    with running_receiver(config) as (port,):
        call(port)
        until(lambda: [*rejections(data)])
    (finding,) = rejections(data)
    assert finding.state == "note"
    return finding.found, finding.remedy


def associate(port: int, calling: str = "STORESCU", called: str = "GLAM", tls: ssl.SSLContext | None = None) -> None:
    entity = AE(ae_title=calling)
    entity.add_requested_context(Verification)
    options = {"tls_args": (tls, "localhost")} if tls else {}
    assert not entity.associate("127.0.0.1", port, ae_title=called, **options).is_established  # type: ignore[arg-type]


def send(port: int, content: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(content)
        with suppress(OSError):  # the listener may have closed it
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1000):
                pass


PLAIN: dict[str, tuple[Callable[[int], object], str, str]] = {
    "called": (lambda port: associate(port, called="glam"), "expected 'GLAM'", "receive.ae_title"),
    "calling": (lambda port: associate(port, calling="OTHER"), "no configured sender", "[[receive.senders]]"),
    "TLS": (lambda port: associate(port, tls=ssl.create_default_context()), "uses TLS", "[receive.tls]"),
    "HTTP": (lambda port: send(port, b"GET / HTTP/1.1\r\n\r\n"), "does not use DICOM", "which program"),
    "nothing": (lambda port: send(port, b""), "without an association request", "port scans"),
    "damaged": (lambda port: send(port, b"\1\0\0\0\0\4abcd"), "an association request", "see its log"),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_on_the_plain_port(tmp_path: Path, kind: str) -> None:
    call, told, remedy = PLAIN[kind]
    found, advised = rejected(config_of(tmp_path), call)
    assert told in found and remedy in advised
    assert ("[[receive.senders]]" in advised) == (kind == "calling")


def trusting(trust: Path, own: Authority | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=trust)
    if own:
        context.load_cert_chain(*own.sign("modality"))
    return context


@pytest.mark.parametrize("kind", ["no certificate", "another authority", "does not trust us", "no TLS"])
def test_on_the_port_with_tls(tmp_path: Path, kind: str) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    certificate, key = ours.sign("glam")
    tls = {"certificate": certificate, "key": key, "authority": ours.authority, "port": 0}
    context, told, remedy = {
        "no certificate": (trusting(ours.authority), "DID_NOT_RETURN", "give it a certificate"),
        "another authority": (trusting(ours.authority, theirs), "VERIFY_FAILED", "receive.tls.authority"),
        "does not trust us": (trusting(theirs.authority, ours), "ALERT", "trust the authority"),
        "no TLS": (None, "no TLS connection", "turn TLS 1.2 or later on"),
    }[kind]
    config = config_of(tmp_path, port=False, tls=tls)
    found, advised = rejected(config, lambda port: associate(port, tls=context))
    assert told in found and remedy in advised
    assert "receive.senders" not in advised

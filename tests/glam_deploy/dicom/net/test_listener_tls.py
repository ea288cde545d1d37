"""The listener over mutual TLS."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import Authority
from support.listener import Post, associated, post, rejection, run
from support.receive import data_set_of
from support.until import until

from glam_deploy.dicom.net.listener import tls_context
from glam_deploy.dicom.net.peer import TlsFiles
from glam_deploy.errors import UsageError

pytestmark = pytest.mark.usefixtures("sockets_are_closed")


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


def test_storescu_over_tls(secure: tuple[Post, int], authority: Authority, image: Path) -> None:
    here, port = secure
    files = own(authority, "storescu")
    tls = ["+tls", files.key, files.certificate, "+cf", authority.authority, "-rc"]
    done = run("storescu", *tls, "-aet", "STORESCU", "-aec", "GLAM", "localhost", port, image)
    assert done.returncode == 0, done.stderr
    assert here.uploads[0].finished

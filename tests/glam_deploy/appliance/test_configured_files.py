"""Configured files that are pipes or have no end: each reader names them, and none waits or fills the memory."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from support.certificates import Authority

from glam_deploy.appliance.config import Oidc, Tls, Web, WebTls
from glam_deploy.appliance.notify.client import secure_context
from glam_deploy.appliance.targets import read_secret, tls_files
from glam_deploy.appliance.web.access import certificate_names, check_web, read_client_secret, read_token
from glam_deploy.appliance.web.oidc import ProviderUnavailable, discover
from glam_deploy.appliance.web.server import tls_context as web_context
from glam_deploy.cli.check_config import read_config
from glam_deploy.cli.doctor_certificates import shown_certificate
from glam_deploy.dicom.net.dicomweb import WebPeer, connect
from glam_deploy.dicom.net.listener import tls_context as listener_context
from glam_deploy.dicom.net.peer import tls_context as client_context
from glam_deploy.errors import GlamError
from glam_deploy.regular import SMALL_FILE

Reader = Callable[[Path, Tls], object]


def pair(tls: Tls) -> dict[str, Path]:
    return {"certificate": tls.certificate, "key": tls.key}


READERS: dict[str, Reader] = {
    "configuration": lambda path, tls: read_config(path),
    "token": lambda path, tls: read_token(path),
    "client secret": lambda path, tls: read_client_secret(path),
    "secret": lambda path, tls: read_secret(path),
    "names": lambda path, tls: certificate_names(path),
    "web": lambda path, tls: check_web(Web(token_file=path)),
    "web key": lambda path, tls: web_context(WebTls(certificate=tls.certificate, key=path), print),
    "web authority": lambda path, tls: web_context(WebTls(**pair(tls), authority=path), print),
    "listener key": lambda path, tls: listener_context(tls_files(tls.model_copy(update={"key": path}))),
    "listener authority": lambda path, tls: listener_context(tls_files(tls.model_copy(update={"authority": path}))),
    "client certificate": lambda path, tls: client_context(tls_files(tls.model_copy(update={"certificate": path}))),
    "client key": lambda path, tls: client_context(tls_files(tls.model_copy(update={"key": path}))),
    "notify authority": lambda path, tls: secure_context(None, path),
    "dicomweb authority": lambda path, tls: connect(WebPeer(url="https://127.0.0.1", authority=path)),
    "dicomweb key": lambda path, tls: connect(
        WebPeer(url="https://127.0.0.1", certificate=tls.certificate, key=path, authority=tls.authority)
    ),
    "provider": lambda path, tls: discover(
        Oidc(issuer="https://127.0.0.1:1", client_id="a", viewer=("a",), authority=path)
    ),
    "doctor": lambda path, tls: shown_certificate("127.0.0.1", 1, tls.model_copy(update={"key": path}), 1.0),
}
KINDS = ("pipe", "/dev/zero", "long")


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    authority = Authority(tmp_path / "tls")
    certificate, key = authority.sign("glam")
    return Tls(certificate=certificate, key=key, authority=authority.authority)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_a_file_without_end_is_named(tmp_path: Path, tls: Tls, name: str, kind: str) -> None:
    path = Path(kind) if kind.startswith("/") else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "long":
        path.touch(0o600)
        os.truncate(path, SMALL_FILE + 1)
    with pytest.raises((GlamError, ProviderUnavailable, OSError)) as caught:
        READERS[name](path, tls)
    assert not isinstance(caught.value, TimeoutError | ConnectionError | ssl.SSLError), caught.value
    assert str(path) in str(caught.value)

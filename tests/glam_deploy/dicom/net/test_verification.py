"""Certificates that Python 3.13 refuses, because they lack what RFC 5280 demands."""

import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from support.certificates import Authority

from glam_deploy.dicom.net.bounded_http import BoundedHttp
from glam_deploy.dicom.net.verification import verifying_context


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts as Python 3.13 and urllib3 with it make them."""
    made = ssl.SSLContext.__new__

    def strict_context(*args: object, **options: object) -> ssl.SSLContext:
        context = made(*args, **options)  # type: ignore[arg-type]
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl.SSLContext, "__new__", strict_context)


@pytest.mark.usefixtures("strict")
def test_no_context_is_strict(tmp_path: Path) -> None:
    assert ssl.create_default_context().verify_flags & ssl.VERIFY_X509_STRICT
    authority = Authority(tmp_path, bare=True).authority
    contexts = [verifying_context(purpose, authority) for purpose in (ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH)]
    adapter = BoundedHttp(1).session.get_adapter("https://pacs.example")
    contexts.append(adapter.poolmanager.connection_pool_kw["ssl_context"])  # type: ignore[attr-defined]
    assert not any(context.verify_flags & ssl.VERIFY_X509_STRICT for context in contexts)


def handshake(client: ssl.SSLContext, authority: Authority) -> None:
    """A client's handshake with a server that has a certificate of `authority`, in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.sign("server"))
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(one, other, server_hostname="localhost"), server.wrap_bio(other, one, server_side=True)]
    for end in ends * 2:
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    assert ends[0].cipher()


@pytest.mark.usefixtures("strict")
def test_a_bare_certificate_is_accepted_by_us_and_a_whole_one_by_everybody(tmp_path: Path) -> None:
    bare, whole = Authority(tmp_path / "bare", bare=True), Authority(tmp_path / "whole")
    handshake(verifying_context(ssl.Purpose.SERVER_AUTH, bare.authority), bare)
    handshake(ssl.create_default_context(cafile=whole.authority), whole)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)authority key identifier"):
        handshake(ssl.create_default_context(cafile=bare.authority), bare)

"""Certificates that Python 3.13 refuses: those of tests/support/certificates.py name no key of their authority."""

import ssl
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
    authority = Authority(tmp_path).authority
    contexts = [verifying_context(purpose, authority) for purpose in (ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH)]
    adapter = BoundedHttp(1).session.get_adapter("https://pacs.example")
    contexts.append(adapter.poolmanager.connection_pool_kw["ssl_context"])  # type: ignore[attr-defined]
    assert not any(context.verify_flags & ssl.VERIFY_X509_STRICT for context in contexts)

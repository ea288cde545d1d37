"""Verification of certificates alike under every version of Python.

Python 3.13 and later, and urllib3 with it, refuse certificates that lack what RFC 5280 demands of them, such as an
authority key identifier (docs.python.org/3/library/ssl.html, create_default_context). Authorities of hospitals issue
such certificates, and an upgrade of Python must not cut an appliance off from its archive.
"""

import ssl
from pathlib import Path


def verifying_context(purpose: ssl.Purpose, authority: Path | None) -> ssl.SSLContext:
    """Context of Python's defaults with TLS 1.2 or later; `authority`: PEM file, None: those that this machine trusts.

    Raises OSError if the file cannot be used.
    """
    context = ssl.create_default_context(purpose, cafile=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    relax(context)
    return context


def relax(context: ssl.SSLContext) -> None:
    """Let a context accept certificates that Python 3.12 accepts."""
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT

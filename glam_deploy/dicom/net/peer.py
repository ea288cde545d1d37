"""DICOM node to connect to: address, TLS files, and diagnosis of failed connections."""

import logging
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.dicom.net.verification import verifying_context
from glam_deploy.errors import PeerError
from glam_deploy.regular import require_small

_NO_ANSWER = "it accepts connections, but no association: check that it is a DICOM port, and one without TLS if `tls` "
_NO_ANSWER += "is not set"


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files of one side of a mutual TLS connection."""

    certificate: Path
    key: Path
    authority: Path
    """CA certificates that must have signed the certificate of the other side."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A node that accepts associations."""

    ae_title: str
    host: str
    port: int
    calling_ae_title: str = "GLAM"
    tls: TlsFiles | None = None
    timeout_s: float = 30
    """Time limit in seconds of each step: to connect, to answer an association request or message, to receive bytes."""

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host} port {self.port}"


def silence_pynetdicom() -> None:
    """Disable log messages of pynetdicom in this process, because they quote data sets and identifiers."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS context of a client: TLS 1.2 or later; requires a certificate of the host name, signed by `authority`.

    Raises PeerError if a file cannot be used.
    """
    try:
        require_small(files.certificate, files.key, files.authority)
        context = verifying_context(ssl.Purpose.SERVER_AUTH, files.authority)
        # without a password OpenSSL would prompt on the terminal
        context.load_cert_chain(files.certificate, files.key, password="")
    except OSError as error:  # SSLError is one
        raise PeerError(
            f"the TLS files {files.certificate}, {files.key}, {files.authority} cannot be used "
            f"({_cause(error)}): expected readable PEM files, and the key of the certificate, without a password"
        ) from None
    return context


def why_unreachable(peer: Peer) -> str:
    """Connect again to find the cause of a failed association for the administrator; pynetdicom does not keep it."""
    try:
        with socket.create_connection((peer.host, peer.port), peer.timeout_s) as plain:
            return _why_not_over_tls(peer, plain) if peer.tls else _NO_ANSWER
    except OSError as error:
        return f"no connection ({_cause(error)})"


def _why_not_over_tls(peer: Peer, plain: socket.socket) -> str:
    assert peer.tls
    try:
        with tls_context(peer.tls).wrap_socket(plain, server_hostname=peer.host) as secure:
            # in TLS 1.3 the server checks our certificate after the handshake has ended for the client
            secure.settimeout(min(1.0, peer.timeout_s))
            secure.recv(1)
    except TimeoutError:
        return "TLS works, but it accepts no association: check that it is a DICOM port"
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not valid ({error.verify_message})"
    except OSError as error:
        return (
            f"no TLS connection ({_cause(error)}): check that it trusts the certificate of glam-deploy, and that it "
            "is a TLS port"
        )
    return "it closed the TLS connection: check that it trusts the certificate of glam-deploy"


def _cause(error: OSError) -> str:
    """Cause of an OSError, without the rest of its message, which may quote names."""
    return getattr(error, "reason", None) or error.strerror or type(error).__name__

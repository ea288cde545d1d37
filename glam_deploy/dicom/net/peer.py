"""Another DICOM node as a configuration names it, and why it does not let us in."""

import logging
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.errors import PeerError

_NO_ANSWER = "it takes connections, but no association: is it a DICOM port, and one without TLS where `tls` is not set?"


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files of one side of mutual TLS."""

    certificate: Path
    key: Path
    authority: Path
    """What the other side's certificate must be signed by."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A node that takes associations."""

    ae_title: str
    host: str
    port: int
    calling_ae_title: str = "GLAM"
    tls: TlsFiles | None = None
    timeout_s: float = 30
    """For each of: to connect, to answer a request for an association, to answer a message, to take some bytes."""

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host} port {self.port}"


def hush() -> None:
    """From now on, in this process: pynetdicom says nothing, for its messages quote data sets and identifiers."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """For the side that connects: shows our certificate, and takes only a name that `authority` has signed.

    TLS 1.2 or later. Raises PeerError where a file cannot be used.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=files.authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(files.certificate, files.key, password="")  # without: a prompt on the terminal
    except OSError as error:  # SSLError is one
        raise PeerError(
            f"the TLS files {files.certificate}, {files.key}, {files.authority} cannot be used "
            f"({_told(error)}): expected readable PEM files, the key belonging to the certificate, without a password"
        ) from None
    return context


def why_unreachable(peer: Peer) -> str:
    """Connect once more, for the words that tell an administrator what to look at; pynetdicom keeps none."""
    try:
        with socket.create_connection((peer.host, peer.port), peer.timeout_s) as plain:
            return _why_not_over_tls(peer, plain) if peer.tls else _NO_ANSWER
    except OSError as error:
        return f"no connection ({_told(error)})"


def _why_not_over_tls(peer: Peer, plain: socket.socket) -> str:
    assert peer.tls
    try:
        with tls_context(peer.tls).wrap_socket(plain, server_hostname=peer.host) as secure:
            # in TLS 1.3 a server judges our certificate after the handshake, as the client sees it
            secure.settimeout(min(1.0, peer.timeout_s))
            secure.recv(1)
    except TimeoutError:
        return "TLS is well, but it takes no association: is it a DICOM port?"
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not accepted ({error.verify_message})"
    except OSError as error:
        return f"no TLS connection ({_told(error)}): is our certificate known there, and is it a TLS port?"
    return "it closed the TLS connection: is our certificate known there?"


def _told(error: OSError) -> str:
    """Without what the message of an OSError may quote."""
    return getattr(error, "reason", None) or error.strerror or type(error).__name__

"""Clients of the receivers: what they have in common, and the one for an entry."""

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from glam_deploy.appliance.config import Email, Fhir, Hl7, Notify, Tls, Webhook
from glam_deploy.appliance.notify.message import Message
from glam_deploy.appliance.targets import read_secret, tls_files
from glam_deploy.dicom.net.dicomweb import WebPeer
from glam_deploy.dicom.net.peer import tls_context
from glam_deploy.dicom.net.verification import verifying_context
from glam_deploy.errors import PeerError
from glam_deploy.regular import require_small


class NotifyClient(Protocol):
    """Access to one receiver. Secret files are read at each use, since they may be replaced."""

    def send(self, message: Message) -> str:
        """Send a message; "" if the receiver has confirmed it, else why it refuses this message.

        Raises PeerError if the receiver cannot be reached or denies access, PeerBroke if it gives no answer about the
        message.
        """

    def check(self) -> str:
        """What a connection without a message has shown, as in "answers over TLS". Raises PeerError."""


def client_of(entry: Notify, timeout_s: float) -> NotifyClient:
    """The client for an entry of [[notify]]."""
    from glam_deploy.appliance.notify.fhir import FhirClient
    from glam_deploy.appliance.notify.hl7 import Hl7Client
    from glam_deploy.appliance.notify.mail import EmailClient
    from glam_deploy.appliance.notify.webhook import WebhookClient

    kinds: Mapping[type, Callable[[], NotifyClient]] = {
        Webhook: lambda: WebhookClient(entry, timeout_s),  # type: ignore[arg-type]
        Email: lambda: EmailClient(entry, timeout_s),  # type: ignore[arg-type]
        Hl7: lambda: Hl7Client(entry, timeout_s),  # type: ignore[arg-type]
        Fhir: lambda: FhirClient(entry, timeout_s),  # type: ignore[arg-type]
    }
    return kinds[type(entry)]()


def web_peer(entry: Webhook | Fhir, timeout_s: float) -> WebPeer:
    """The HTTP service of an entry with its credentials. Raises PeerError if a secret file cannot be read."""
    tls, login = entry.tls, entry if isinstance(entry, Fhir) else None
    return WebPeer(
        url=entry.url.rstrip("/"),
        token=read_secret(login.token_file) if login else None,
        user=login.user if login else None,
        password=read_secret(login.password_file) if login else None,
        certificate=tls.certificate if tls else None,
        key=tls.key if tls else None,
        authority=tls.authority if tls else entry.authority,
        timeout_s=timeout_s,
    )


def secure_context(tls: Tls | None, authority: Path | None) -> ssl.SSLContext:
    """TLS context of a client: 1.2 or later, host name and certificate checked. Raises PeerError.

    `authority`: PEM file of the authority of the server's certificate; None: those that this machine trusts.
    """
    if tls:
        return tls_context(tls_files(tls))
    try:
        if authority:
            require_small(authority)
        context = verifying_context(ssl.Purpose.SERVER_AUTH, authority)
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise PeerError(f"{authority} cannot be used ({reason}): expected a readable PEM file") from None
    return context


def tls_cause(error: OSError) -> str:
    """Cause of a failed connection, without texts of the other side."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "reason", None) or error.strerror or type(error).__name__

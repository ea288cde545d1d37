"""Checks of certificates by `doctor`: readable, matching their keys, made for their use, not expired."""

import socket
import ssl
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from glam_deploy.cli.doctor_findings import FAILS, Finding, fails, note, ok
from glam_deploy.installation import quoted
from glam_deploy.regular import SMALL_FILE, read_regular, require_small

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from glam_deploy.appliance.config import Config, KeyPair, Tls

SOON = timedelta(days=30)
"""A certificate that expires within this time should be renewed now."""

_FOR_SERVERS, _FOR_CLIENTS = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"
"""Extended key usages (RFC 5280, 4.2.1.12)."""


def certificates(config: "Config") -> Iterator[Finding]:
    """Findings on every certificate, key and authority of the listeners, targets and notifications."""
    for name, tls in (("receive.tls", config.receive.tls), ("web.tls", config.web.tls)):
        if tls is not None:
            yield from _own(f"certificate of {name}", tls, _FOR_SERVERS)
            if tls.authority is not None:
                yield from _authority(f"authority of {name}", tls.authority)
    for target in config.targets:
        if target.tls is not None:
            yield from _own(f"certificate of target {target.name}", target.tls, _FOR_CLIENTS)
        if authority := target.tls.authority if target.tls else target.stow_authority:
            yield from _authority(f"authority of target {target.name}", authority)
    for entry in config.notify:
        tls = getattr(entry, "tls", None)
        if tls is not None:
            yield from _own(f"certificate of notify {entry.name}", tls, _FOR_CLIENTS)
        if authority := tls.authority if tls else entry.authority:
            yield from _authority(f"authority of notify {entry.name}", authority)


def are_usable(tls: "Tls") -> bool:
    """Whether no check of these files fails."""
    return all(each.state != FAILS for each in (*_own("", tls, _FOR_CLIENTS), *_authority("", tls.authority)))


def shown_certificate(host: str, port: int, tls: "KeyPair", timeout_s: float, farewell: bytes = b"") -> bytes:
    """The certificate (DER) that a listener presents, without verification; `farewell` is sent before the end.

    Raises OSError if TLS fails.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    require_small(tls.certificate, tls.key)
    context.load_cert_chain(tls.certificate, tls.key, password="")
    with socket.create_connection((host, port), timeout_s) as plain, context.wrap_socket(plain) as secure:
        with suppress(OSError):  # a listener that does not accept the own certificate from a client has closed already
            secure.sendall(farewell)
        return secure.getpeercert(binary_form=True) or b""


def first_certificate(path: Path) -> bytes:
    """The first certificate of a file (DER), which a listener with that file presents; b"" if it cannot be read."""
    from cryptography.hazmat.primitives.serialization import Encoding

    with suppress(OSError, ValueError):
        return _read(path)[0].public_bytes(Encoding.DER)
    return b""


def may_call_itself(tls: "Tls", address: str) -> bool:
    """Whether the listener's own certificate is valid as a client certificate for it, and names `address`."""
    try:
        chain, authorities = _read(tls.certificate), _read(tls.authority)
    except (OSError, ValueError):
        return False
    signed = any(_has_signed(authority, chain[-1]) for authority in authorities)
    return signed and address in _addresses(chain[0]) and _is_made_for(chain[0], _FOR_CLIENTS)


def _own(what: str, tls: "KeyPair", usage: str) -> Iterator[Finding]:
    """A certificate of the appliance and its key."""
    try:
        chain = _read(tls.certificate)
    except (OSError, ValueError) as error:
        yield _unreadable(what, tls.certificate, error)
        yield from _of_key(what, tls.key, None)
        return
    faults = [*_of_key(what, tls.key, chain[0]), *_of_usage(what, tls.certificate, chain[0], usage)]
    lasting = _lasting(what, tls.certificate, chain, min(each.not_valid_after_utc for each in chain))
    if lasting.state == "ok" and not faults:
        yield ok(what, f"{lasting.found}; {tls.key} is its key")
    else:
        yield from (each for each in (lasting, *faults) if each.state != "ok")


def _authority(what: str, path: Path) -> Iterator[Finding]:
    """The authorities in a file; the latest expiry counts, since a renewed authority may stand beside the old one."""
    try:
        found = _read(path)
    except (OSError, ValueError) as error:
        yield _unreadable(what, path, error)
    else:
        yield _lasting(what, path, found[-1:], max(each.not_valid_after_utc for each in found))


def _lasting(what: str, path: Path, chain: Sequence["Certificate"], ends: datetime) -> Finding:
    now, begins = datetime.now(UTC), max(each.not_valid_before_utc for each in chain)
    renew = "renew it and restart the appliance, which reads certificates at its start"
    if now >= ends:
        return fails(what, f"{path} expired on {_day(ends)}: peers refuse it", renew)
    if now < begins:
        return fails(what, f"{path} is not valid before {_day(begins)}", "check the clock, or use an older certificate")
    if ends - now < SOON:
        return note(what, f"{path} expires on {_day(ends)}, in {(ends - now).days} days", renew)
    return ok(what, f"{path}, valid until {_day(ends)}")


def _of_key(what: str, path: Path, certificate: "Certificate | None") -> Iterator[Finding]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(read_regular(path, SMALL_FILE), None)
        mode = path.stat().st_mode
    except TypeError:
        remedy = "remove the password: openssl pkey -in KEY -out NEW; the file's mode protects it"
        yield fails(what, f"{path} has a password, which the service cannot ask for when it starts", remedy)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        yield _unreadable(what, path, error, "key")
    else:
        if certificate and key.public_key() != certificate.public_key():
            yield fails(
                what, f"{path} is not the key of the certificate", "set the key that belongs to the certificate"
            )
        if mode & stat.S_IRWXO:
            yield note(what, f"other users may read the key {path}", f"chmod o= {quoted(path)}")


def _of_usage(what: str, path: Path, certificate: "Certificate", usage: str) -> Iterator[Finding]:
    if not _is_made_for(certificate, usage):
        side, given = ("servers", "serverAuth") if usage == _FOR_SERVERS else ("clients", "clientAuth")
        remedy = f"request one with extended key usage {given}, or without any"
        yield note(what, f"{path} is not made for {side}: peers may refuse it", remedy)


def _is_made_for(certificate: "Certificate", usage: str) -> bool:
    """Whether the extended key usage allows `usage`; without that extension it allows everything."""
    from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound

    try:
        usages = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        return True
    return usage in [each.dotted_string for each in usages]


def _addresses(certificate: "Certificate") -> list[str]:
    from cryptography.x509 import ExtensionNotFound, IPAddress, SubjectAlternativeName

    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return []
    return [str(address) for address in names.get_values_for_type(IPAddress)]


def _has_signed(authority: "Certificate", certificate: "Certificate") -> bool:
    from cryptography.exceptions import InvalidSignature

    with suppress(InvalidSignature, ValueError, TypeError):
        certificate.verify_directly_issued_by(authority)
        return True
    return certificate == authority


def _read(path: Path) -> list["Certificate"]:
    """All certificates in a PEM file, one or more. Raises OSError, ValueError."""
    from cryptography.x509 import load_pem_x509_certificates

    return load_pem_x509_certificates(read_regular(path, SMALL_FILE))


def _unreadable(what: str, path: Path, error: Exception, kind: str = "certificate") -> Finding:
    if isinstance(error, OSError):
        return fails(what, f"{path} cannot be read ({error.strerror})", "set a file that this user can read")
    return fails(what, f"{path} holds no {kind}", f"expected a PEM file with -----BEGIN ... {kind.upper()}-----")


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"

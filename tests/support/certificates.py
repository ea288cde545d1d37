"""Certificates for tests of TLS: an authority and what it signs, made in a folder."""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
_NAMES = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
_SIGNS = x509.KeyUsage(
    digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
)  # fmt: skip


class Authority:
    """Signs certificates that are good for this machine's loopback; `authority` is its own."""

    def __init__(
        self, folder: Path, name: str = "authority", *, until: datetime.timedelta = DAY, bare: bool = False
    ) -> None:
        """`until`: good from now for so long; what has ended began earlier still. `bare`: as many authorities of
        hospitals, without the identifiers and uses of keys that RFC 5280 demands and Python 3.13 verifies.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name, self._is_bare = folder, name, bare
        self._key = ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = self._builder(name, self._key, -HOUR, until).add_extension(constraints, critical=True)
        own = (builder if bare else builder.add_extension(_SIGNS, critical=True)).sign(self._key, hashes.SHA256())
        self.authority = folder / f"{name}.crt"
        self.authority.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def sign(
        self,
        name: str,
        *,
        since: datetime.timedelta = -HOUR,
        until: datetime.timedelta = DAY,
        usages: Sequence[x509.ObjectIdentifier] = (),
        password: bytes = b"",
    ) -> tuple[Path, Path]:
        """Files of a new certificate, good from `since` to `until`, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(name, key, since, until).add_extension(_NAMES, critical=False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        made = builder.sign(self._key, hashes.SHA256())
        certificate, key_file = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        pem, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        encryption = serialization.BestAvailableEncryption(password) if password else plain
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, encryption))
        key_file.chmod(0o600)
        return certificate, key_file

    def _builder(
        self, name: str, key: ec.EllipticCurvePrivateKey, since: datetime.timedelta, until: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + since)
            .not_valid_after(now + until)
        )
        if self._is_bare:
            return builder
        of_authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        of_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        return builder.add_extension(of_authority, critical=False).add_extension(of_key, critical=False)

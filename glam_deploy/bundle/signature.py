"""Signatures of bundles: Ed25519 (RFC 8032) over the bytes of `manifest.json`, or of `ensemble.json` of an ensemble.

The manifest has the SHA-256 of every other file, so a signature of the manifest covers the whole bundle. It is in
`signature.json` beside the manifest. Nothing here uses a network. The only importer of cryptography in this package.

Keys are PEM files: private ones PKCS#8 (RFC 5958), public ones SubjectPublicKeyInfo (RFC 8410), as openssl writes them.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glam_deploy.errors import BundleError, UsageError, disk_reason
from glam_deploy.installation import quoted, require
from glam_deploy.json_records import JsonFault, from_json, parse_json
from glam_deploy.regular import read_regular, unused

SIGNATURE = "signature.json"
ALGORITHM = "Ed25519"
SIZE_LIMIT = 1 << 16
"""Maximum size in bytes of a signature file and of a key file."""
PREFIX = bytes.fromhex("302a300506032b6570032100")
"""DER encoding of SubjectPublicKeyInfo of an Ed25519 key up to its 32 bytes (RFC 8410, section 4)."""
SHOWN = 16
"""Digits of a key's fingerprint that messages show."""
DIGEST = re.compile("[0-9a-f]{64}")
BEGIN = b"-----BEGIN "
ENCRYPTED = BEGIN + b"ENCRYPTED PRIVATE KEY-----"
OPENSSH = BEGIN + b"OPENSSH PRIVATE KEY-----", b"ssh-"
"""How private and public keys in the format of OpenSSH begin."""
DER = b"\x30"
"""How keys in DER begin: the tag of a SEQUENCE."""
_FIELD = 2**255 - 19
_EIGHTH = 0x5FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _FIELD, _FIELD + 1, _EIGHTH, _FIELD - _EIGHTH})
"""y of the points whose order divides 8, for which anybody can make signatures that RFC 8032 accepts (section 5.1.7);
also in their other encodings."""
_FROM_SOURCE = "Copy the bundle again from its source"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The content of `signature.json`."""

    schema_version: int
    algorithm: str
    key: str
    """Fingerprint of the key: SHA-256 of its SubjectPublicKeyInfo in DER, hexadecimal."""
    sha256: str
    """SHA-256 of the signed file, hexadecimal: shows without a key that the file was changed later."""
    signature: str
    """64 bytes in base64 (RFC 4648, section 4)."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What a bundle must prove before it is opened. The default demands nothing."""

    keys: tuple[bytes, ...] = ()
    """Public keys of 32 bytes, of which one must have signed the bundle; empty if no signature is demanded."""
    digest: str | None = None
    """The id that the bundle must have (of an ensemble: `folder.digest_of`); None for any."""


def read_trust(keys: Sequence[Path] | None, digest: str | None = None) -> Trust:
    """Trust in the public keys of PEM files; None demands no signature.

    Raises UsageError without a key, for a file that is no such key and for a digest that is no SHA-256;
    BackendUnavailable without cryptography.
    """
    if keys is not None and not keys:
        raise UsageError("trusted_keys is empty, so that any bundle would do: name a public key, or leave it out")
    if digest is not None and not DIGEST.fullmatch(str(digest)):
        raise UsageError(
            f"the digest {digest!r} is not a SHA-256: expected 64 digits 0-9 and a-f, as `glam-deploy inspect` prints"
        )
    return Trust(keys=tuple(map(_read_public_key, keys or ())), digest=digest)


def fingerprint(key: bytes) -> str:
    """SHA-256 of a public key of 32 bytes as SubjectPublicKeyInfo in DER, hexadecimal."""
    return hashlib.sha256(PREFIX + key).hexdigest()


def require_signed(folder: Path, name: str, text: bytes, trust: Trust) -> None:
    """Raises BundleError unless a key of `trust` has signed the file `name` of `folder` with the content `text`.

    Does nothing if `trust` has no keys. Called before `text` is parsed.
    """
    if not trust.keys:
        return
    found = read_signature(folder)
    if found is None:
        raise BundleError(
            f"{folder}: has no {SIGNATURE}, and a signature of a trusted key is demanded. {_FROM_SOURCE}, with "
            f"{SIGNATURE}; or, if you made it, sign it: glam-deploy sign --bundle {quoted(folder)} --key KEY"
        )
    known = {fingerprint(key): key for key in trust.keys}
    if found.key not in known:
        expected = " or ".join(one[:SHOWN] for one in known)
        raise BundleError(
            f"{folder}: is signed with the key {found.key[:SHOWN]}, expected {expected}. {_FROM_SOURCE}, or trust this "
            f"key too if its owner confirms the fingerprint."
        )
    if not _is_valid(known[found.key], found, text):
        raise BundleError(
            f"{folder}: the signature does not fit {name}: one of them was changed after the bundle was signed. "
            f"{_FROM_SOURCE}; or, if you changed it (a gate, an engine), sign it again: glam-deploy sign --bundle "
            f"{quoted(folder)} --key KEY"
        )


def read_signature(folder: Path) -> Signature | None:
    """The signature of a bundle or an ensemble, not verified; None without one. Raises BundleError if it is damaged."""
    try:
        found = from_json(Signature, parse_json(read_regular(folder / SIGNATURE, SIZE_LIMIT)))
        if found.schema_version != 1 or found.algorithm != ALGORITHM:
            raise JsonFault(f"it is of schema {found.schema_version} and {found.algorithm}, expected 1 and {ALGORITHM}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        reason = disk_reason(error) if isinstance(error, OSError) else error
        raise BundleError(f"{folder}: {SIGNATURE} cannot be read ({reason}). {_FROM_SOURCE}, or sign it.") from error
    return found


def signature_of(text: bytes, key: Any) -> Signature:
    """The signature of a file with the content `text`. `key`: of `read_private_key`."""
    return Signature(
        schema_version=1,
        algorithm=ALGORITHM,
        key=fingerprint(key.public_key().public_bytes_raw()),
        sha256=hashlib.sha256(text).hexdigest(),
        signature=base64.b64encode(key.sign(text)).decode("ascii"),
    )


def _is_valid(key: bytes, found: Signature, text: bytes) -> bool:
    _require_library()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(base64.b64decode(found.signature, validate=True), text)
    except (InvalidSignature, ValueError):
        return False
    return found.sha256 == hashlib.sha256(text).hexdigest()


def read_private_key(path: Path, passphrase: Callable[[], bytes]) -> Any:
    """The private key in a PEM file; `passphrase` is called if it is encrypted.

    Raises UsageError for a file that is no Ed25519 key and for a wrong passphrase; BackendUnavailable without
    cryptography.
    """
    _require_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = _key_text(path)
    encrypted = ENCRYPTED in text
    secret = passphrase() if encrypted else None
    try:
        key = load_pem_private_key(text, secret)
    except (ValueError, TypeError) as error:
        if encrypted:
            raise UsageError(
                f"{path}: cannot be decrypted: the passphrase is wrong, or the file is damaged. Give the passphrase of "
                "this key, or a copy of the key"
            ) from error
        raise UsageError(f"{path}: {_what_instead(text)}, expected a private key in PEM. {_new_key(path)}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path}: is a key of another algorithm, expected {ALGORITHM}. {_new_key(path)}")
    return key


def _what_instead(text: bytes) -> str:
    """What a file is that is no private key in PEM."""
    if BEGIN + b"PUBLIC KEY-----" in text:
        return "is a public key"
    if any(begin in text for begin in OPENSSH):
        return "is a key of OpenSSH"
    if text.startswith(DER):
        return "is in DER"
    return "is no key" if text.strip() else "is empty"


def _new_key(path: Path) -> str:
    """How to make a key, in a file that does not exist: openssl replaces others without asking."""
    return f"Name another file, or make a new key: openssl genpkey -algorithm ed25519 -out {quoted(unused(path))}"


def _read_public_key(path: Path) -> bytes:
    _require_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    text = _key_text(path)
    from_owner = "Who signs makes it with: openssl pkey -in PRIVATE -pubout -out PUBLIC"
    if b"PRIVATE KEY-----" in text:
        raise UsageError(f"{path}: is a private key, which only who signs may have; name its public key. {from_owner}")
    if (found := text.count(BEGIN)) > 1:
        raise UsageError(f"{path}: has {found} keys, expected one: write each to a file of its own, and name all")
    try:
        key = load_pem_public_key(text)
    except ValueError as error:
        what = _what_instead(text)
        raise UsageError(f"{path}: {what}, expected a public key of {ALGORITHM} in PEM. {from_owner}") from error
    if not isinstance(key, Ed25519PublicKey) or _has_small_order(key.public_bytes_raw()):
        raise UsageError(
            f"{path}: is no key of {ALGORITHM} that belongs to a private key: name the public key of who signs. "
            f"{from_owner}"
        )
    return key.public_bytes_raw()


def _has_small_order(key: bytes) -> bool:
    """Whether anybody can make signatures for a key."""
    return (int.from_bytes(key, "little") & (1 << 255) - 1) in _SMALL_ORDER


def _key_text(path: Path) -> bytes:
    try:
        return read_regular(path, SIZE_LIMIT)
    except OSError as error:
        raise UsageError(f"{path}: the key cannot be read ({disk_reason(error)}); name a PEM file") from error


def _require_library() -> None:
    require("sign", user="a signature")

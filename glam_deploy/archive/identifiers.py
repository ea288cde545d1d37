"""Policy of the columns that identify an image: as stored, or as pseudonyms made with a secret key.

Never a column: PatientID, the name and the date of birth. Pseudonyms are HMAC-SHA-256 (RFC 2104, FIPS 180-4) of the
identifier with the key: without the key they can neither be computed nor be found by trying identifiers, and the same
key gives the same pseudonyms in every run and on every machine.
"""

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from glam_deploy.errors import UsageError, disk_reason
from glam_deploy.installation import quoted
from glam_deploy.regular import read_regular, unused

UIDS: Mapping[str, str] = MappingProxyType(
    {
        "SOPInstanceUID": "sop_instance_uid",
        "SeriesInstanceUID": "series_instance_uid",
        "StudyInstanceUID": "study_instance_uid",
    }
)
"""DICOM keyword -> column."""

_MIN_DIGITS = 64
_MAX_FILE = 4096


@dataclass(frozen=True, kw_only=True)
class Identifiers:
    """What goes into the columns that identify an image."""

    key: bytes | None = field(default=None, repr=False)
    """Key of the pseudonyms; None: identifiers as stored."""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify the key and do not reveal it; "" without a key."""
        return "" if self.key is None else self._mac("fingerprint", "")[:16]

    def of(self, uids: Mapping[str, str], location: str, *, patient: str = "") -> Mapping[str, str]:
        """Column -> text for the columns "location", "patient" and `UIDS`.

        `uids`: DICOM keyword -> UID. `patient`: `patient_of` the file; only its pseudonym becomes a column, which is ""
        without a key.
        """
        columns = {column: self.uid(uids.get(keyword, "")) for keyword, column in UIDS.items()}
        hidden = "" if self.key is None else self.text("patient", patient)
        return {"location": self.text("location", location), "patient": hidden, **columns}

    def uid(self, uid: str) -> str:
        """`uid` itself, or a UID `2.25.<integer>` (PS3.5 section B.2), a UUID version 8 (RFC 9562) made of its MAC."""
        if self.key is None or not uid:
            return uid
        number = int(self._mac("uid", uid.strip(" \0"))[:32], 16)
        number = number & ~(0xF << 76) | 8 << 76  # version
        return f"2.25.{number & ~(0x3 << 62) | 0x2 << 62}"  # variant

    def text(self, kind: str, text: str) -> str:
        """`text` itself, or 32 hexadecimal digits. `kind`: "location", "content" (SHA-256 of a file) and so on; the
        same text of another kind has another pseudonym.
        """
        return text if self.key is None or not text else self._mac(kind, text)[:32]

    def check_key(self, fingerprint: str) -> None:
        """Raise UsageError if `fingerprint`, recorded by an earlier run into the same data set, is of another key."""
        if fingerprint != self.fingerprint:
            used = f"pseudonyms of the key {fingerprint}" if fingerprint else "identifiers as stored"
            given = f"the key {self.fingerprint}" if self.key is not None else "no key"
            raise UsageError(
                f"the data set has {used}, but {given} was given: use the same --pseudonyms file, or another folder"
            )

    def _mac(self, kind: str, text: str) -> str:
        assert self.key is not None
        return hmac.new(self.key, encoded(f"glam-deploy {kind}\0{text}"), hashlib.sha256).hexdigest()


def encoded(text: str) -> bytes:
    """Bytes of any text, for its digest: UTF-8, with the bytes of file names that are not UTF-8 as they are."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # other halves of surrogate pairs, of JSON of a server or a decoder
        return text.encode("utf-8", "surrogatepass")


def patient_of(data: bytes) -> str:
    """PatientID with its issuer, as one text for `Identifiers.of`; "" without a PatientID or for other formats.

    Raises DicomError if the header cannot be read.
    """
    from glam_deploy.dicom.attributes import values_of

    values = values_of(data, ("IssuerOfPatientID", "PatientID"))
    issuer, identifier = ("\\".join(values[keyword]) for keyword in ("IssuerOfPatientID", "PatientID"))
    return f"{len(issuer)}:{issuer}:{identifier}" if identifier else ""


def read_key(path: Path) -> Identifiers:
    """The policy of pseudonyms with the key in a file: at least 64 hexadecimal digits, readable by its owner only.

    Raises UsageError, never with the content of the file.
    """
    try:
        status = path.stat()
        content = read_regular(path, _MAX_FILE)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist, expected a key file. Make one with: {_make(path)}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({disk_reason(error)}): check the path and its permissions") from None
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(status.st_mode)
        raise UsageError(f"{path} can be read or changed by others (mode {mode:o}). Run: chmod 600 {quoted(path)}")
    if status.st_uid not in (os.getuid(), 0):
        raise UsageError(f"{path} belongs to user {status.st_uid}, expected you or root: copy the key into your file")
    digits = content.strip()
    if not re.fullmatch(rb"(?:[0-9a-fA-F]{2})*", digits) or len(digits) < _MIN_DIGITS or len(set(digits)) < 8:
        raise UsageError(
            f"{path} is no key file, expected {_MIN_DIGITS} or more random hexadecimal digits (an even number). "
            f"Name another, or make one with: {_make(unused(path))}"
        )
    return Identifiers(key=bytes.fromhex(digits.decode()))


def _make(path: Path) -> str:
    return f"(umask 077; openssl rand -hex 32 > {quoted(path)})"

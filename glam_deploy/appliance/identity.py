"""UIDs as received and as derived, and the pseudonyms of studies in logs."""

import hashlib
import hmac
import re
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the state of the appliance is read without pydicom too
    from glam_deploy.dicom.received import Received

_NAMESPACE = uuid.UUID("6f0c7a0e-6d0f-5c55-9f3c-0a3a0b6d1f57")
"""Namespace of all derived UIDs. It must never change: a re-sent result would become another object."""

DERIVED = "2.25."
"""Prefix of derived UIDs, and of those that other software makes from a UUID (PS3.5 section B.2)."""

_UID = re.compile(r"(?=.{1,64}\Z)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+\Z", re.ASCII)


def is_uid(text: str) -> bool:
    """Whether `text` is a UID by PS3.5 section 9.1; such a text is also safe as a file name."""
    return _UID.match(text) is not None


def derived_uid(*what: str) -> str:
    """A UID derived from texts: the same texts give the same UID, on every machine.

    It is a name-based UUID under 2.25 (PS3.5 section B.2, ISO/IEC 9834-8).
    """
    return f"{DERIVED}{uuid.uuid5(_NAMESPACE, digest(*what)).int}"


def valid_uid(keyword: str, text: str) -> str:
    """`text` itself if it is a valid UID, else a UID derived from it. `keyword`: the DICOM element that holds it."""
    return text if is_uid(text) else derived_uid(keyword, text)


def with_valid_uids(received: "Received") -> "Received":
    """The received object with its invalid UIDs replaced by derived ones (`valid_uid`)."""
    return replace(
        received,
        sop_uid=valid_uid("SOPInstanceUID", received.sop_uid),
        study_uid=valid_uid("StudyInstanceUID", received.study_uid),
        series_uid=valid_uid("SeriesInstanceUID", received.series_uid),
    )


def digest(*what: str) -> str:
    """SHA-256 (64 hexadecimal digits) of several texts; lengths are included, so that texts cannot run together."""
    return hashlib.sha256("".join(f"{len(text)}:{text}" for text in what).encode()).hexdigest()


def pseudonym(key: bytes, identifier: str) -> str:
    """Pseudonym of the study, patient or instance `identifier`: 16 hexadecimal digits, constant for one `key`.

    HMAC-SHA-256: without the key it cannot be found by trying identifiers.
    """
    return hmac.new(key, identifier.encode(), hashlib.sha256).hexdigest()[:16]

"""UIDs as they come and as they are made, and the pseudonyms by which logs call a study."""

import hashlib
import hmac
import re
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the state of the appliance is read without pydicom too
    from glam_deploy.dicom.received import Received

_NAMESPACE = uuid.UUID("6f0c7a0e-6d0f-5c55-9f3c-0a3a0b6d1f57")
"""Of all UIDs that glam-deploy derives; never changed, or a re-sent result would be another object."""

DERIVED = "2.25."
"""How derived UIDs begin, and those that other software made of a UUID (PS3.5 section B.2)."""

_UID = re.compile(r"(?=.{1,64}\Z)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+\Z", re.ASCII)


def is_uid(text: str) -> bool:
    """Whether `text` is a UID by PS3.5 section 9.1: safe as a file name too."""
    return _UID.match(text) is not None


def derived_uid(*what: str) -> str:
    """The UID of what `what` names: the same words give the same UID, here and everywhere.

    A name-based UUID under 2.25 (PS3.5 section B.2, ISO/IEC 9834-8).
    """
    return f"{DERIVED}{uuid.uuid5(_NAMESPACE, digest(*what)).int}"


def kept_uid(keyword: str, text: str) -> str:
    """The UID under which the appliance keeps what an object calls `text`: that itself, or one derived where it is no
    UID. `keyword`: the DICOM element that holds it.
    """
    return text if is_uid(text) else derived_uid(keyword, text)


def kept(received: "Received") -> "Received":
    """The same object under the UIDs that the appliance keeps it by."""
    return replace(
        received,
        sop_uid=kept_uid("SOPInstanceUID", received.sop_uid),
        study_uid=kept_uid("StudyInstanceUID", received.study_uid),
        series_uid=kept_uid("SeriesInstanceUID", received.series_uid),
    )


def digest(*what: str) -> str:
    """SHA-256 (64 hexadecimal digits) of several texts, none of which can run into the next."""
    return hashlib.sha256("".join(f"{len(text)}:{text}" for text in what).encode()).hexdigest()


def pseudonym(key: bytes, identifier: str) -> str:
    """What logs call the study, patient or instance `identifier`: 16 hexadecimal digits, the same for one `key`.

    HMAC-SHA-256: nobody without the key can find it by trying identifiers.
    """
    return hmac.new(key, identifier.encode(), hashlib.sha256).hexdigest()[:16]

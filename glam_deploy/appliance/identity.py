"""UIDs as they come and as they are made, and the pseudonyms by which logs call a study."""

import hashlib
import hmac
import re
import uuid

_NAMESPACE = uuid.UUID("6f0c7a0e-6d0f-5c55-9f3c-0a3a0b6d1f57")
"""Of all UIDs that glam-deploy derives; never changed, or a re-sent result would be another object."""

_UID = re.compile(r"(?=.{1,64}\Z)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+\Z", re.ASCII)


def is_uid(text: str) -> bool:
    """Whether `text` is a UID by PS3.5 section 9.1: safe as a file name too."""
    return _UID.match(text) is not None


def derived_uid(*what: str) -> str:
    """The UID of what `what` names: the same words give the same UID, here and everywhere.

    A name-based UUID under 2.25 (PS3.5 section B.2, ISO/IEC 9834-8).
    """
    return f"2.25.{uuid.uuid5(_NAMESPACE, digest(*what)).int}"


def digest(*what: str) -> str:
    """SHA-256 (64 hexadecimal digits) of several texts, none of which can run into the next."""
    return hashlib.sha256("".join(f"{len(text)}:{text}" for text in what).encode()).hexdigest()


def pseudonym(key: bytes, identifier: str) -> str:
    """What logs call the study, patient or instance `identifier`: 16 hexadecimal digits, the same for one `key`.

    HMAC-SHA-256: nobody without the key can find it by trying identifiers.
    """
    return hmac.new(key, identifier.encode(), hashlib.sha256).hexdigest()[:16]

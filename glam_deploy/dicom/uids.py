"""UIDs: their form, and those derived from texts, such as those of result objects. Needs no pydicom."""

import hashlib
import re
import uuid

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


def random_uid() -> str:
    """A new UID, different from all others: a random UUID under 2.25 (PS3.5 section B.2)."""
    return f"{DERIVED}{uuid.uuid4().int}"


def valid_uid(keyword: str, text: str) -> str:
    """`text` itself if it is a valid UID, else a UID derived from it. `keyword`: the DICOM element that holds it."""
    return text if is_uid(text) else derived_uid(keyword, text)


def digest(*what: str) -> str:
    """SHA-256 (64 hexadecimal digits) of several texts; lengths are included, so that texts cannot run together."""
    return hashlib.sha256("".join(f"{len(text)}:{text}" for text in what).encode()).hexdigest()

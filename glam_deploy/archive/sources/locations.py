"""Locations of entries: paths, URLs without credentials, and members of containers."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, quote_from_bytes, unquote, unquote_to_bytes, urlencode, urlsplit, urlunsplit

from glam_deploy.reading import SUFFIXES

_KINDS = r"\.(?:zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)"
_CONTAINER = re.compile(rf"(?is).*{_KINDS}")
_MEMBER = re.compile(rf"(?i){_KINDS}(?:\?[^!]*)?!")
_SCHEME = re.compile(r"(?i)([a-z][a-z0-9+.-]+)://")
_SECRET_NAME = re.compile(
    r"(?i)x-(amz|goog)-.*|.*(sig|token|secret|passw|pwd|credential|auth|key|session|policy|googleaccessid).*"
    r"|expires|s[a-z]{1,2}|spr|sks|skv|sdd|scid"
)
"""Parameters of signed URLs of Amazon S3, Google Cloud Storage and Azure, and common names."""
_PLAIN_VALUE = re.compile(r"[0-9.]*|.{0,31}", re.DOTALL)
"""A UID, or a text too short for a key; a longer one could be a credential under another name."""


def scheme_of(text: str) -> str:
    """The scheme of a URL in lower case, "" for a path."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def local_location(path: Path) -> str:
    """The location of a file of this machine: its path, as a file URL (RFC 8089) if its name is not valid UTF-8."""
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"file://{quote_from_bytes(os.fsencode(path.absolute()))}"
    return text


def local_path(location: str) -> Path:
    """The path of a location made by `local_location`, or of a file URL."""
    if scheme_of(location) != "file":
        return Path(location)
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(location).path)))


def without_credentials(url: str) -> str:
    """`url` without user, password, fragment and the parameters of its query that are or may be credentials.

    A URL that cannot be parsed is cut after its scheme.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return f"{scheme_of(url)}://"
    kept = [(name, value) for name, value in query if not _is_secret(name, value)]
    return urlunsplit((parts.scheme, host, parts.path, urlencode(kept), ""))


def _is_secret(name: str, value: str) -> bool:
    return bool(_SECRET_NAME.fullmatch(name)) or not _PLAIN_VALUE.fullmatch(value)


def path_part(location: str) -> str:
    """The path of a location: of a URL without host and query, decoded."""
    return unquote(urlsplit(location).path) if scheme_of(location) else location


def name_of(location: str) -> str:
    """The file name in a location, for messages."""
    return PurePosixPath(path_part(location)).name or location


def is_container(location: str) -> bool:
    """Whether the name is that of a zip or tar file."""
    return _CONTAINER.fullmatch(path_part(location)) is not None


def split_member(location: str) -> Iterator[tuple[str, str]]:
    """Container and member of a location CONTAINER!MEMBER, for each place where it can be divided, in order."""
    for found in _MEMBER.finditer(location):
        if found.end() < len(location):
            yield location[: found.end() - 1], location[found.end() :]


def is_hidden(name: str) -> bool:
    """Whether a part of a relative name is hidden, or the last one is DICOMDIR: such files are no entries."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part.startswith(".") and part != ".." for part in parts) or bool(parts and parts[-1] == "DICOMDIR")


def is_named_image(name: str) -> bool:
    """Whether a name has the suffix of an image or of a container."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES or is_container(name)


def may_be_image(name: str) -> bool:
    """Whether a name is that of an image, of a container, or has no suffix; a UID seems to have one of digits."""
    return is_named_image(name) or not PurePosixPath(name).suffix.strip(".0123456789")

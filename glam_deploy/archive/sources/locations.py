"""Locations of entries: paths, URLs without credentials, and members of containers."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import quote_from_bytes, unquote, unquote_plus, unquote_to_bytes, urlsplit

from glam_deploy.input_files import PACKED, has_no_suffix, is_directory_name, is_image_name
from glam_deploy.signatures import ARCHIVES, kind_of

_KINDS = r"\.(?:zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)"
_CONTAINER = re.compile(rf"(?is).*{_KINDS}")
_UNOPENED = re.compile(
    r"(?is).*\.(?:7z|rar|iso|img|dmg|zipx|z01|lzh|lha|arj|cab|cpio|taz|tbz|tb2|tz2|tlz|tzst|tar\.(?:zst|lz4?|lzma|lzo|bz|br|z))"
)
"""Archives of kinds that are not opened."""
OTHER_SUFFIXES = frozenset(
    {".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".htm", ".md", ".pdf", ".log", ".yaml", ".yml",
     ".toml", ".parquet", ".md5", ".sha256", ".py", ".sh", ".xlsx", ".docx", ".ini", ".cfg"}
)  # fmt: skip
"""Suffixes of files that are no images, also if they are packed. In a store all other objects are entries, because
their content is not looked at."""
_MEMBER = re.compile(rf"(?i){_KINDS}(?:\?[^!]*)?!")
_SCHEME = re.compile(r"(?i)([a-z][a-z0-9+.-]+)://")
_CREDENTIAL = re.compile(
    r"(?i)x-(amz|goog)-.*|sig|signature|expires|awsaccesskeyid|googleaccessid|key-pair-id"
    r"|((access|auth|bearer|id|sas|security|session)[_-]?)?token|jwt|(api|access)[_-]?key|.*(secret|passw|pwd|credential).*"
)
"""Parameters that only grant access and identify nothing: of URLs signed for Amazon S3, Google Cloud Storage and
CloudFront, and common names. A newly signed URL has other values."""
_AZURE = re.compile(r"(?i)s[vrpeis]|st|srt|sip|spr|sdd|scid|ses|s[ak]oid|suoid|sktid|skt|ske|sks|skv")
"""Parameters of a shared access signature of Azure, which has `sig` and `sv`; elsewhere they are anything."""
_PRIVATE = re.compile(r"(?i).*(sig|token|auth|key|session|policy).*")
"""Names of parameters that may grant access or identify the file, or both."""
_PLAIN_VALUE = re.compile(r"[0-9.]*|.{0,31}", re.DOTALL)
"""A UID, or a text too short for a key; a longer one could be a credential under another name."""
_MARK = "glam-redacted"
"""Parameter of a location with a digest of what was left out."""


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
    _, slash, path = re.split("[?#]", location[len("file://") :])[0].partition("/")
    return Path(os.fsdecode(unquote_to_bytes(slash + path)))


def is_valid(url: str) -> bool:
    """Whether a URL can be parsed; a file URL of another host is none of this machine (RFC 8089, section 2)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme != "file" or parts.hostname in (None, "localhost")


def without_credentials(url: str) -> str:
    """`url` without credentials; two URLs that differ in more than credentials have two results.

    User, password and parameters that only grant access are left out. A fragment and parameters that may grant access
    or identify the file are left out too, but a digest (64 bits of SHA-256) of the URL without credentials takes their
    place. A URL that cannot be parsed is cut after its scheme and has a digest.
    """
    head, _, fragment = url.partition("#")
    address, _, query = head.partition("?")
    scheme, _, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    base = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    parameters = _without_known(query.split("&") if query else [])
    identity = f"{_joined(base, parameters)}#{fragment}" if fragment else _joined(base, parameters)
    # an exclamation mark separates the member of a container
    kept = [text.replace("!", "%21") for text in parameters if not _may_be_secret(*_decoded(text))]
    if not is_valid(url):
        base, kept = f"{scheme}://", []
    if (location := _joined(base, kept)) == identity:
        return location
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return _joined(base, [*kept, f"{_MARK}={digest}"])


def _joined(base: str, parameters: list[str]) -> str:
    return f"{base}?{'&'.join(parameters)}" if parameters else base


def _without_known(parameters: list[str]) -> list[str]:
    """The parameters of a query, as written, without those that only grant access."""
    names = {_decoded(text)[0].lower() for text in parameters}
    is_azure = {"sig", "sv"} <= names
    return [
        text for text in parameters
        if not (_CREDENTIAL.fullmatch(name := _decoded(text)[0]) or (is_azure and _AZURE.fullmatch(name)))
    ]  # fmt: skip


def _decoded(parameter: str) -> tuple[str, str]:
    """Name and value of a parameter."""
    name, _, value = parameter.partition("=")
    return unquote_plus(name), unquote_plus(value)


def _may_be_secret(name: str, value: str) -> bool:
    return name.lower() == _MARK or bool(_PRIVATE.fullmatch(name)) or not _PLAIN_VALUE.fullmatch(value or name)


def path_part(location: str) -> str:
    """The path of a location: of a URL without host and query, decoded."""
    return unquote(urlsplit(location).path) if scheme_of(location) else location


def name_of(location: str) -> str:
    """The file name in a location, for messages."""
    return PurePosixPath(path_part(location)).name or location


def is_container(location: str) -> bool:
    """Whether a path or URL is that of a zip or tar file, by its name."""
    return is_container_name(path_part(location))


def is_container_name(name: str) -> bool:
    """Whether a name that is no URL is that of a zip or tar file."""
    return _CONTAINER.fullmatch(name) is not None


def split_member(location: str) -> Iterator[tuple[str, str]]:
    """Container and member of a location CONTAINER!MEMBER, for each place where it can be divided, in order."""
    for found in _MEMBER.finditer(location):
        if found.end() < len(location):
            yield location[: found.end() - 1], location[found.end() :]


def places(location: str) -> Iterator[str]:
    """A location, and those of the container, the folders, or the study and series that it is in."""
    yield location
    yield from (container for container, _ in split_member(location))
    yield from (location[: found.start()] for found in re.finditer("/", location) if found.start())


def is_hidden(name: str) -> bool:
    """Whether a part of a relative name is hidden, or its file is a DICOMDIR: such files are no entries."""
    parts = _parts(name)
    return is_hidden_folder(name) or bool(parts and is_directory_name(parts[-1]))


def is_hidden_folder(name: str) -> bool:
    """Whether a part of the relative name of a folder is hidden; DICOMDIR may be a folder of images."""
    return any(part.startswith(".") and part != ".." for part in _parts(name))


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts


def is_named_image(name: str) -> bool:
    """Whether a name that is no URL has the suffix of an image, of a container, or of an archive that is not opened,
    which gets a row with this reason.
    """
    return is_image_name(PurePosixPath(name)) or is_container_name(name) or _UNOPENED.fullmatch(name) is not None


def unpacked_suffix(name: str) -> str:
    """The suffix of a file name in lower case, without those of packing behind it: `.txt` of `a.txt.gz`."""
    return next((suffix for suffix in reversed(PurePosixPath(name.lower()).suffixes) if suffix not in PACKED), "")


def is_archive(name: str, head: bytes) -> bool:
    """Whether a file is an archive by its first `signatures.HEAD` bytes; it gets a row with this reason."""
    return kind_of(head) in ARCHIVES and unpacked_suffix(name) not in OTHER_SUFFIXES


def may_be_image(name: str) -> bool:
    """Whether a name is that of an image, of a container, or has no suffix; a UID seems to have one of digits."""
    return is_named_image(name) or has_no_suffix(PurePosixPath(name))

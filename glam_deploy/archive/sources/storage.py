"""Bytes of files: on this machine, or behind a URL through fsspec, with errors that say what is at fault."""

import errno
import io
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from glam_deploy.archive.sources.base import SourceUnavailable
from glam_deploy.archive.sources.locations import local_path, scheme_of, without_credentials
from glam_deploy.errors import BackendUnavailable, GlamError, InputError, UsageError, unreadable
from glam_deploy.installation import EXTRAS, lacks, package_command
from glam_deploy.reading import MAX_BYTES
from glam_deploy.regular import NOT_REGULAR, open_regular

T = TypeVar("T")

PAUSES_S = (0.5, 2.0)
"""Seconds before the second and the third attempt of a request that got no answer."""
IDLE_S = 60.0
"""Seconds to connect over HTTP, and to receive the next byte."""
REQUEST_S = 600.0
"""Seconds for one request over HTTP with its answer."""
_CHUNK = 1 << 20
_UNKNOWN = 1 << 62
_LOST = frozenset(
    {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH,
     errno.ENODEV, errno.ENXIO, errno.EREMOTEIO, errno.ECONNRESET, errno.ECONNREFUSED}
)  # fmt: skip
"""Errors of a file system whose device or server is gone."""
_OUTAGE = frozenset({408, 425, 429, 502, 503, 504})
"""HTTP statuses of a server that is overloaded or has lost its own back end (RFC 9110 section 15, RFC 6585)."""
_PACKAGES: Mapping[str, str] = MappingProxyType(
    {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
     "http": "aiohttp", "https": "aiohttp", "sftp": "paramiko", "ssh": "paramiko", "hdfs": "pyarrow"}
)  # fmt: skip
"""Scheme -> package that fsspec needs for it."""


class Doubt(GlamError):
    """One entry could not be read, and either the entry or its source is at fault; internal to this package."""

    def __init__(self, message: str, *, about_entry: bool, may_pass: bool) -> None:
        """`about_entry`: the entry is at fault if it is not known whether its source answers.

        `may_pass`: another attempt may succeed.
        """
        super().__init__(message)
        self.about_entry, self.may_pass = about_entry, may_pass


def is_url(location: str) -> bool:
    """Whether a location is read through fsspec."""
    return scheme_of(location) not in ("", "file")


def read_all(address: str, size: int | None) -> bytes:
    """The bytes of a file, at most MAX_BYTES. Raises InputError for a larger one, Doubt if it cannot be read."""
    if size is not None and size > MAX_BYTES:
        raise _too_large()
    if is_url(address):
        return with_retries(lambda: _read_url(address))
    with open_binary(address) as file:
        return read_bounded(file)


def open_binary(address: str) -> BinaryIO:
    """The file at a path or URL, opened for reading with seeks. Its methods raise Doubt for errors of disk and server,
    and OSError with EINVAL for a position that it does not have.
    """
    if is_url(address):
        return with_retries(lambda: _Guarded(_url_opened(address, stream=False), partial(url_doubt, url=address)))
    try:
        return _Guarded(open_regular(local_path(address)), local_doubt)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise local_doubt(error) from None


def read_bounded(file: BinaryIO) -> bytes:
    """The rest of a file. Raises InputError for more than MAX_BYTES."""
    content = bytearray()
    while chunk := file.read(_CHUNK):
        content += chunk
        if len(content) > MAX_BYTES:
            raise _too_large()
    return bytes(content)


def with_retries(call: Callable[[], T], pause: Callable[[float], None] = time.sleep) -> T:
    """`call()`, repeated after `PAUSES_S` while it raises a Doubt that may pass."""
    for seconds in PAUSES_S:
        try:
            return call()
        except Doubt as doubt:
            if not doubt.may_pass:
                raise
        pause(seconds)
    return call()


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises UsageError for an unknown scheme, BackendUnavailable if its package is missing, SourceUnavailable for other
    errors; no message has credentials.
    """
    scheme = scheme_of(url)
    if scheme == "local":
        raise UsageError(f"{without_credentials(url)} is on this machine: give its path")
    if "::" in url:
        raise UsageError(f"{without_credentials(url)} is a chain of URLs: give the URL of the archive file itself")
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise _lacks(scheme, "fsspec") from None
    try:
        fs, path = url_to_fs(scheme + url[len(scheme) :], use_listings_cache=False, **_limits(scheme))
    except ImportError as error:
        raise _lacks(scheme, _PACKAGES.get(scheme, ""), str(error)) from None
    except ValueError:
        raise UsageError(
            f"{scheme}:// is no scheme that fsspec reads: expected s3, gs, abfs, https or the like"
        ) from None
    except Exception as error:
        raise SourceUnavailable(f"{without_credentials(url)} cannot be opened: {url_doubt(error)}") from None
    return fs, str(path)


def _limits(scheme: str) -> dict[str, Any]:
    """Time limits of requests with HTTP; the other libraries have their own."""
    if scheme not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout

    limits = ClientTimeout(total=REQUEST_S, connect=IDLE_S, sock_connect=IDLE_S, sock_read=IDLE_S)
    return {"client_kwargs": {"timeout": limits}}


def url_doubt(error: BaseException, url: str = "") -> Doubt:
    """What an error of fsspec or of a library under it means; its text is not used, because it may quote the URL.

    `url`: the one that was asked for, to know a redirection to another server; "" if there is none.
    """
    if isinstance(error, FileNotFoundError) and type(error.__cause__).__module__.startswith("aiohttp"):
        error = error.__cause__ or error  # fsspec takes every error of the first request for an absent file
    return _http_doubt(error, url) or _doubt(error)


def _http_doubt(error: BaseException, url: str) -> Doubt | None:
    """What an error of aiohttp means that is one of the entry although there is no status."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"RedirectClientError", "TooManyRedirects"}:
        return _final("its URL redirects in a circle, or to something that is not http or https: check the URL")
    if isinstance(error, ValueError):
        return _final("its URL is not valid: check the list")
    if "ClientPayloadError" in kinds:
        return Doubt("its content ends too early: check the file on the server", about_entry=True, may_pass=True)
    if url and "ClientConnectorError" in kinds and not _is_of(url, error):
        message = "its URL redirects to a server that cannot be connected: check the URL"
        return Doubt(message, about_entry=True, may_pass=True)
    return None


def _is_of(url: str, error: Any) -> bool:
    """Whether a connection that failed was to the host of a URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return (str(error.host).lower(), error.port) == (parts.hostname, port)


def _doubt(error: BaseException) -> Doubt:
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return _final("it does not exist at its URL: check the list or the name")
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        return _final("access is denied: check the credentials and their validity")
    if isinstance(error, IsADirectoryError):
        return _final("its URL is a folder, expected a file")
    if not isinstance(status, int) or status < 400:
        kind = type(error).__name__
        return Doubt(f"no answer ({kind}): check the network and the server", about_entry=False, may_pass=True)
    # a server that fails for one object answers 500 for it again and again
    is_outage = status in _OUTAGE
    message = f"the server answers {status}: check its log"
    return Doubt(message, about_entry=not is_outage, may_pass=is_outage or status >= 500)


def _final(message: str) -> Doubt:
    return Doubt(message, about_entry=True, may_pass=False)


def local_doubt(error: BaseException) -> Doubt:
    """What an error of a local file system means."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, IsADirectoryError):
        return _final("the path is a folder that could not be searched: give read permission")
    if isinstance(error, OSError) and error.strerror == NOT_REGULAR:
        return _final(NOT_REGULAR)
    reason = unreadable(error) if isinstance(error, OSError) else "(the name is not valid): check its path and rights"
    message = f"it cannot be read {reason}"
    return Doubt(message, about_entry=number not in _LOST, may_pass=False)


def _read_url(url: str) -> bytes:
    with _Guarded(_url_opened(url, stream=True), partial(url_doubt, url=url)) as file:
        if (file.size or 0) > MAX_BYTES:
            raise _too_large()
        return read_bounded(file)


def _url_opened(url: str, *, stream: bool) -> Any:
    """The file at a URL; `stream`: only read from its beginning to its end, with HTTP in one request."""
    fs, path = filesystem(url)
    options: dict[str, object] = {}
    if stream:
        is_http = scheme_of(url) in ("http", "https")
        options = {"block_size": 0, "size": 1} if is_http else {"block_size": 1 << 24, "cache_type": "readahead"}
    try:
        return fs.open(path, "rb", **options)
    except Exception as error:
        raise url_doubt(error, url) from None


class _Guarded(io.BufferedIOBase, BinaryIO):
    """A file whose errors are raised as Doubt, but for a position that it does not have."""

    def __init__(self, file: Any, doubt: Callable[[BaseException], Doubt]) -> None:
        self._file, self._doubt = file, doubt
        size = getattr(file, "size", None)
        self.size = size if isinstance(size, int) else None
        if isinstance(file, io.BufferedReader):
            self.size = os.fstat(file.fileno()).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def read(self, size: int | None = -1, /) -> bytes:
        return self._guard(lambda: bytes(self._file.read(-1 if size is None else size)))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Raises OSError with EINVAL for a position before the beginning, as any file: it is no error of the disk."""
        if self._start(whence) + offset < 0:
            raise _before_start()
        try:
            self._guard(lambda: self._file.seek(offset, whence))
        except _NotSeekable:
            if self.tell() == 0 and not self.read(1):  # fsspec does not know the size of an empty file
                raise _before_start() from None
            raise
        return self.tell()

    def _start(self, whence: int) -> int:
        """The position from which `whence` counts; a high one if it is not known."""
        if whence == io.SEEK_END:
            return _UNKNOWN if self.size is None else self.size
        return self.tell() if whence == io.SEEK_CUR else 0

    def tell(self) -> int:
        return self._guard(lambda: int(self._file.tell()))

    def close(self) -> None:
        if not self.closed:
            with suppress(Exception):  # a connection may be lost already
                self._file.close()
            super().close()

    def _guard(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except ValueError:  # of fsspec, where the answer of a server is not the part that was asked for
            raise _NotSeekable() from None
        except Exception as error:
            raise self._doubt(error) from None


class _NotSeekable(Doubt):
    """A server does not give parts of a file."""

    def __init__(self) -> None:
        message = "the server sends files as a whole only (no HTTP range requests): copy the file to this machine"
        super().__init__(message, about_entry=True, may_pass=False)


def _before_start() -> OSError:
    return OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _too_large() -> InputError:
    return InputError(f"it has more than {MAX_BYTES} bytes, too many for one mammogram")


def _lacks(scheme: str, package: str, reason: str = "") -> BackendUnavailable:
    """`package`: name at an index, "" if only fsspec knows it; `reason`: what fsspec says."""
    if package in EXTRAS["ray"]:
        return BackendUnavailable(lacks(f"{scheme}://", [package], "ray"))
    if not package:
        return BackendUnavailable(f"{scheme}:// needs a package that this Python lacks. fsspec says: {reason}")
    return BackendUnavailable(
        f"{scheme}:// needs the package {package}, which this Python lacks. Install with: {package_command(package)}"
    )


def exists(path: Path) -> bool:
    """Whether a path leads to a file or folder that can be reached."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def is_file(path: Path) -> bool:
    """Whether a path leads to a regular file."""
    return exists(path) and path.is_file()

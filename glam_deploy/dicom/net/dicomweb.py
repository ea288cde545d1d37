"""What clients of DICOMweb share: the service, the connection with it, and the values of its responses (PS3.18)."""

import ssl
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import requests

from glam_deploy.dicom.net.bounded_http import BoundedHttp, Reply
from glam_deploy.dicom.net.delivery import SLOWEST
from glam_deploy.errors import PeerBroke, PeerError
from glam_deploy.regular import require_small


@dataclass(frozen=True, kw_only=True)
class WebPeer:
    """A DICOMweb service."""

    url: str
    """Root of the service, such as https://pacs/dicom-web."""
    token: str | None = field(default=None, repr=False)
    """Bearer token."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    """Password of `user`, for basic authentication."""
    certificate: Path | None = None
    key: Path | None = None
    """Client certificate and key, for a service that requests them."""
    authority: Path | None = None
    """CA certificates that must have signed the certificate of the service; None: those that this machine trusts."""
    timeout_s: float = 30
    """Time limit in seconds to connect, and to receive the next byte."""

    def __str__(self) -> str:
        return self.url


def connect(peer: WebPeer) -> BoundedHttp:
    """A session with the service; sends no request. Proxies, password files and redirections are not used.

    Raises PeerError if a certificate, key or authority is no file that can be read.
    """
    for path in (peer.certificate, peer.key, peer.authority):
        _require_file(path)
    bounded = BoundedHttp(peer.timeout_s)
    http = bounded.session
    http.verify = str(peer.authority) if peer.authority else _authorities_of_this_machine()
    http.cert = (str(peer.certificate), str(peer.key)) if peer.certificate else None
    if peer.user is not None:
        http.auth = (peer.user, peer.password or "")
    if peer.token is not None:
        http.headers["Authorization"] = f"Bearer {peer.token}"
    return bounded


class WebConnection:
    """Requests to one service, limited in size and time. Making and entering it sends none."""

    def __init__(self, peer: WebPeer) -> None:
        self.peer, self._http = peer, connect(peer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def exchange(self, method: str, url: str, *, size: int = 0, **options: Any) -> Reply:
        """A response of any status. `size`: bytes that are sent or received, which extend the time limit.

        Raises PeerBroke with the kind of the error only, because messages of `requests` quote URLs with UIDs.
        """
        try:
            return self._http.request(method, url, seconds=self.peer.timeout_s + size / SLOWEST, **options)
        except requests.RequestException as error:
            raise PeerBroke(f"{self.peer} does not answer ({self._http.exceeded or failure_kind(error)})") from None


def first_value(entry: Any, tag: str) -> Any:
    return next(iter(values_at(entry, tag)), None)


def values_at(entry: Any, tag: str) -> list[Any]:
    """Values of an element in DICOM JSON (PS3.18 annex F); an empty list if the structure is invalid."""
    element = entry.get(tag) if isinstance(entry, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def status_text(answer: Reply) -> str:
    """Status code with its standard phrase, never the text of the server, which may quote the request."""
    code = answer.status
    return f"{code} {HTTPStatus(code).phrase}" if code in set(HTTPStatus) else str(code)


def failure_kind(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "no TLS connection: check `authority`, `certificate` and `key`, and the host name in its certificate"
    return "no response in time" if isinstance(error, requests.Timeout) else "no connection, or it was lost"


def _require_file(path: Path | None) -> None:
    try:
        if path and not path.is_dir():  # OpenSSL takes a folder of hashed authorities, too
            require_small(path)
    except OSError as error:
        raise PeerError(f"{path} cannot be used ({error.strerror}): expected a readable PEM file") from None


def _authorities_of_this_machine() -> str | bool:
    """CA certificates of this machine, which may include the hospital's; those of `requests` if there are none."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or True

"""DICOMweb client: STOW-RS (PS3.18 section 10.5), and QIDO-RS to verify delivery (section 10.6)."""

import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import requests
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from glam_deploy.dicom.header import dicom_errors
from glam_deploy.dicom.net import delivery, files
from glam_deploy.dicom.net.bounded_http import BoundedHttp, Reply
from glam_deploy.dicom.net.delivery import SLOWEST, Answer, Commitment, Item, Outcome
from glam_deploy.errors import DicomError, PeerBroke, PeerDeclined, PeerError

_BOUNDARY = "3b9d5c6e1f0a4d27glam"
_STORE = MappingProxyType(
    {
        "Accept": "application/dicom+json",
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}',
    }
)
_SEARCH = MappingProxyType({"Accept": "application/dicom+json"})

_UNENCODED = 0xC122
"""FailureReason: the service does not support the transfer syntax (PS3.18 table I.2-2)."""
_ABOUT_THE_OBJECT = (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.GONE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                     HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY)  # fmt: skip
_FAILED, _REFERENCED = "00081198", "00081199"
_SOP_UID, _REFERENCED_UID, _FAILURE, _WARNING = "00080018", "00081155", "00081197", "00081196"


@dataclass(frozen=True, kw_only=True)
class StowPeer:
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


class StowSession:
    """Requests to one service for one result set: a `delivery.Session`. Entering sends no request.

    Proxies, password files and redirections are not used, so that only the configured service receives results.
    """

    def __init__(self, peer: StowPeer) -> None:
        self.peer = peer

    def __enter__(self) -> "StowSession":
        peer = self.peer
        self._http = BoundedHttp(peer.timeout_s)
        http = self._http.session
        http.verify = str(peer.authority) if peer.authority else _authorities_of_this_machine()
        http.cert = (str(peer.certificate), str(peer.key)) if peer.certificate else None
        if peer.user is not None:
            http.auth = (peer.user, peer.password or "")
        if peer.token is not None:
            http.headers["Authorization"] = f"Bearer {peer.token}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(self) -> None:
        """Search for a new random study UID. Raises PeerError if the service does not answer or denies access."""
        answer = self._request("GET", "/studies", params={"StudyInstanceUID": generate_uid()}, headers=_SEARCH)
        self._check_access(answer)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and answer.status != HTTPStatus.NOT_IMPLEMENTED:
            raise PeerError(f"{self.peer} answers {_status_text(answer)}: check the log of the service")

    def store(self, item: Item) -> Answer:
        """Send one object in one request, and again decompressed if the service only accepts that.

        Raises PeerError if the service denies access, PeerBroke if there is no response about the object.
        """
        try:
            with dicom_errors("the file of the result cannot be read"):
                encoded = item.path.read_bytes()
            answer = self._post(encoded)
            if _failure(answer, item) == _UNENCODED or answer.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
                answer = self._post(_decompressed(item)) if _is_compressed(item) else answer
        except DicomError as error:
            return files.unreadable(item, error)
        self._check_access(answer)
        if not answer.ok and answer.status not in _ABOUT_THE_OBJECT:
            raise PeerBroke(f"{self.peer} answers {_status_text(answer)}: check the log of the service")
        return _outcome(answer, item)

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        """SOP Instance UIDs of `items` that QIDO-RS finds, with one search per series.

        Raises PeerDeclined if the service does not support the search, PeerBroke if there is no response.
        """
        found = {uid for study_uid, series_uid in files.series(items) for uid in self._search(study_uid, series_uid)}
        return frozenset(item.sop_uid for item in items) & found

    def commit(self, items: Sequence[Item], transaction_uid: str, *, wait_s: float) -> Commitment | None:
        """Raise PeerDeclined, because DICOMweb has no storage commitment here."""
        raise PeerDeclined(
            f"{self.peer} is a DICOMweb service without storage commitment: set `commitment = false`; QIDO-RS verifies "
            "delivery"
        )

    def _post(self, part: bytes) -> Reply:
        head = f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = head + part + f"\r\n--{_BOUNDARY}--\r\n".encode()
        return self._request("POST", "/studies", body=body, headers=_STORE)

    def _search(self, study_uid: str, series_uid: str) -> list[str]:
        answer = self._request("GET", f"/studies/{study_uid}/series/{series_uid}/instances", headers=_SEARCH)
        if answer.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND):
            return []
        found = answer.json()
        if not answer.ok or not isinstance(found, list):
            raise PeerDeclined(
                f"{self.peer} answers a QIDO-RS search with {_status_text(answer)}, expected a list of instances: "
                "allow the search there, or set `query = false` for this target"
            )
        return [str(_first(item, _SOP_UID)) for item in found]

    def _request(self, method: str, path: str, *, body: bytes | None = None, **options: Any) -> Reply:
        """Send a request; returns a response of any status.

        Raises PeerBroke with the kind of the error only, because messages of `requests` quote URLs with UIDs.
        """
        url, seconds = self.peer.url.rstrip("/") + path, self.peer.timeout_s + len(body or b"") / SLOWEST
        try:
            return self._http.request(method, url, seconds=seconds, body=body, **options)
        except requests.RequestException as error:
            raise PeerBroke(f"{self.peer} does not answer ({self._http.exceeded or _kind(error)})") from None

    def _check_access(self, answer: Reply) -> None:
        """Raise PeerError for a status that denies every request, whatever is sent."""
        code = answer.status
        if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
            raise PeerError(f"{self.peer} answers {_status_text(answer)}: check the token, the user or the certificate")
        if code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED) or answer.is_redirect:
            raise PeerError(f"{self.peer} answers {_status_text(answer)}: check `stow_url`, which ends before /studies")


def ask(peer: StowPeer) -> float:
    """Verify the service with a search; returns its duration in seconds. Raises PeerError with the cause."""
    start = time.monotonic()
    with StowSession(peer) as session:
        session.ask()
    return time.monotonic() - start


def _authorities_of_this_machine() -> str | bool:
    """CA certificates of this machine, which may include the hospital's; those of `requests` if there are none."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or True


def _outcome(answer: Reply, item: Item) -> Answer:
    failure, status = _failure(answer, item), _status_text(answer)
    if failure is not None:
        outcome, reason = delivery.stored(failure)
        failed = outcome if outcome is Outcome.NO_ROOM else Outcome.REFUSED
        return Answer(sop_uid=item.sop_uid, outcome=failed, reason=f"{status}, {reason}")
    if not answer.ok:
        return Answer(sop_uid=item.sop_uid, outcome=Outcome.REFUSED, reason=status)
    return Answer(sop_uid=item.sop_uid, outcome=Outcome.STORED, reason=_warning(answer, item))


def _failure(answer: Reply, item: Item) -> int | None:
    """FailureReason of `item` (PS3.18 table I.2-2), 0x0110 if none is given; None if `item` is not listed as failed."""
    failed = _entry(answer, _FAILED, item)
    return None if failed is None else int(_first(failed, _FAILURE) or 0x0110)


def _warning(answer: Reply, item: Item) -> str:
    if answer.status == HTTPStatus.OK:
        return ""
    code = _first(_entry(answer, _REFERENCED, item) or {}, _WARNING)
    return _status_text(answer) + (f", warning 0x{int(code):04X}" if code else "")


def _entry(answer: Reply, sequence: str, item: Item) -> Mapping[str, Any] | None:
    """Item of a sequence of a store response (PS3.18 table 10.5.3-3) that refers to `item`, None if there is none."""
    entries = _values(answer.json(), sequence)
    return next((entry for entry in entries if _first(entry, _REFERENCED_UID) == item.sop_uid), None)


def _first(entry: Any, tag: str) -> Any:
    return next(iter(_values(entry, tag)), None)


def _values(entry: Any, tag: str) -> list[Any]:
    """Values of an element in DICOM JSON (PS3.18 annex F); an empty list if the structure is invalid."""
    element = entry.get(tag) if isinstance(entry, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _status_text(answer: Reply) -> str:
    """Status code with its standard phrase, never the text of the server, which may quote the request."""
    code = answer.status
    return f"{code} {HTTPStatus(code).phrase}" if code in set(HTTPStatus) else str(code)


def _kind(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "no TLS connection: check `authority`, `certificate` and `key`, and the host name in its certificate"
    return "no response in time" if isinstance(error, requests.Timeout) else "no connection, or it was lost"


def _is_compressed(item: Item) -> bool:
    return bool(files.header(item).file_meta.TransferSyntaxUID.is_compressed)


def _decompressed(item: Item) -> bytes:
    dataset: Dataset = files.whole(item)
    files.decompress(dataset)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()

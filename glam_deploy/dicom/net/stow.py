"""Sending over HTTP: STOW-RS (PS3.18 section 10.5), and the QIDO-RS that proves delivery (section 10.6)."""

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

from glam_deploy.dicom.header import foreign_errors
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
"""FailureReason: the service does not take the transfer syntax (PS3.18 table I.2-2)."""
_ABOUT_THE_OBJECT = (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.GONE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                     HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY)  # fmt: skip
_FAILED, _REFERENCED = "00081198", "00081199"
_SOP_UID, _REFERENCED_UID, _FAILURE, _WARNING = "00080018", "00081155", "00081197", "00081196"


@dataclass(frozen=True, kw_only=True)
class StowPeer:
    """A DICOMweb service."""

    url: str
    """Its root, https://pacs/dicom-web."""
    token: str | None = field(default=None, repr=False)
    """Sent as bearer token."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    """Of `user`, for basic authentication."""
    certificate: Path | None = None
    key: Path | None = None
    """Shown where the service asks for them."""
    authority: Path | None = None
    """What its certificate must be signed by; None: an authority that this machine trusts."""
    timeout_s: float = 30

    def __str__(self) -> str:
        return self.url


class StowSession:
    """Requests to one service about one result set: a `delivery.Session`. Entering sends nothing yet.

    No proxy, password file or redirection is followed: what the configuration names is what gets the results.
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
        """Search for a study that nobody has. Raises PeerError where the service does not answer us."""
        answer = self._request("GET", "/studies", params={"StudyInstanceUID": generate_uid()}, headers=_SEARCH)
        self._check_entry(answer)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and answer.status != HTTPStatus.NOT_IMPLEMENTED:
            raise PeerError(f"{self.peer} answers {_told(answer)}")

    def store(self, item: Item) -> Answer:
        """One object in one request; once more decompressed where the service takes it only so.

        Raises PeerError where the service turns us away, PeerBroke where it gives no answer about the object.
        """
        try:
            with foreign_errors("the file of the result cannot be read"):
                encoded = item.path.read_bytes()
            answer = self._post(encoded)
            if _failure(answer, item) == _UNENCODED or answer.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
                answer = self._post(_decompressed(item)) if _is_compressed(item) else answer
        except DicomError as error:
            return files.unreadable(item, error)
        self._check_entry(answer)
        if not answer.ok and answer.status not in _ABOUT_THE_OBJECT:
            raise PeerBroke(f"{self.peer} answers {_told(answer)}: look into its log")
        return _judged(answer, item)

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        """Those UIDs of `items` that QIDO-RS shows: one search a series.

        Raises PeerDeclined where the service cannot be asked, PeerBroke where no answer comes.
        """
        found = {uid for study_uid, series_uid in files.series(items) for uid in self._search(study_uid, series_uid)}
        return frozenset(item.sop_uid for item in items) & found

    def commit(self, items: Sequence[Item], transaction_uid: str, *, wait_s: float) -> Commitment | None:
        """Raises PeerDeclined."""
        raise PeerDeclined(f"{self.peer} is a DICOMweb service: set `commitment = false`, QIDO-RS proves delivery")

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
                f"{self.peer} answers a QIDO-RS search with {_told(answer)}, expected a list of instances: allow it "
                "there, or set `query = false` for this target"
            )
        return [str(_first(item, _SOP_UID)) for item in found]

    def _request(self, method: str, path: str, *, body: bytes | None = None, **options: Any) -> Reply:
        """A reply of any status. Messages of requests quote URLs, which hold UIDs: only their kind is told."""
        url, seconds = self.peer.url.rstrip("/") + path, self.peer.timeout_s + len(body or b"") / SLOWEST
        try:
            return self._http.request(method, url, seconds=seconds, body=body, **options)
        except requests.RequestException as error:
            raise PeerBroke(f"{self.peer} gives no answer ({self._http.exceeded or _kind(error)})") from None

    def _check_entry(self, answer: Reply) -> None:
        """Raises PeerError where this service is not for us, whatever we send."""
        code = answer.status
        if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
            raise PeerError(f"{self.peer} answers {_told(answer)}: check the token, the user or the certificate")
        if code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED) or answer.is_redirect:
            raise PeerError(f"{self.peer} answers {_told(answer)}: check `stow_url`, which ends before /studies")


def ask(peer: StowPeer) -> float:
    """Ask the service for a sign of life: seconds. Raises PeerError, which says why there is none."""
    start = time.monotonic()
    with StowSession(peer) as session:
        session.ask()
    return time.monotonic() - start


def _authorities_of_this_machine() -> str | bool:
    """Where a hospital's own authority is installed; the list that comes with requests only where there is none."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or True


def _judged(answer: Reply, item: Item) -> Answer:
    failure, told = _failure(answer, item), _told(answer)
    if failure is not None:
        outcome, reason = delivery.stored(failure)
        failed = outcome if outcome is Outcome.NO_ROOM else Outcome.REFUSED
        return Answer(sop_uid=item.sop_uid, outcome=failed, reason=f"{told}, {reason}")
    if not answer.ok:
        return Answer(sop_uid=item.sop_uid, outcome=Outcome.REFUSED, reason=told)
    return Answer(sop_uid=item.sop_uid, outcome=Outcome.STORED, reason=_warning(answer, item))


def _failure(answer: Reply, item: Item) -> int | None:
    """FailureReason of `item` (PS3.18 table I.2-2), 0x0110 where none is given; None where it is not said to fail."""
    failed = _entry(answer, _FAILED, item)
    return None if failed is None else int(_first(failed, _FAILURE) or 0x0110)


def _warning(answer: Reply, item: Item) -> str:
    if answer.status == HTTPStatus.OK:
        return ""
    code = _first(_entry(answer, _REFERENCED, item) or {}, _WARNING)
    return _told(answer) + (f", warning 0x{int(code):04X}" if code else "")


def _entry(answer: Reply, sequence: str, item: Item) -> Mapping[str, Any] | None:
    """What a store response (PS3.18 table 10.5.3-3) says of `item` in a sequence."""
    entries = _values(answer.json(), sequence)
    return next((entry for entry in entries if _first(entry, _REFERENCED_UID) == item.sop_uid), None)


def _first(entry: Any, tag: str) -> Any:
    return next(iter(_values(entry, tag)), None)


def _values(entry: Any, tag: str) -> list[Any]:
    """Of an element in DICOM JSON (PS3.18 annex F); none where a server writes something else."""
    element = entry.get(tag) if isinstance(entry, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _told(answer: Reply) -> str:
    """Status in words of the standard, never the server's own, which might quote what was sent."""
    code = answer.status
    return f"{code} {HTTPStatus(code).phrase}" if code in set(HTTPStatus) else str(code)


def _kind(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "no TLS connection: check `authority`, `certificate` and `key`, and the name in its certificate"
    return "no answer in time" if isinstance(error, requests.Timeout) else "no connection, or it was cut"


def _is_compressed(item: Item) -> bool:
    return bool(files.header(item).file_meta.TransferSyntaxUID.is_compressed)


def _decompressed(item: Item) -> bytes:
    dataset: Dataset = files.whole(item)
    files.decompress(dataset)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()

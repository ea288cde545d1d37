"""DICOMweb client: STOW-RS (PS3.18 section 10.5), and QIDO-RS to verify delivery (section 10.6)."""

import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from io import BytesIO
from types import MappingProxyType
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from glam_deploy.dicom.net import delivery, files
from glam_deploy.dicom.net.bounded_http import Reply
from glam_deploy.dicom.net.delivery import Answer, Commitment, Item, Outcome
from glam_deploy.dicom.net.dicomweb import WebConnection, WebPeer, first_value, status_text, values_at
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


class StowSession(WebConnection):
    """Requests to one service for one result set: a `delivery.Session`. Entering sends no request."""

    def ask(self) -> None:
        """Search for a new random study UID. Raises PeerError if the service does not answer or denies access."""
        answer = self._request("GET", "/studies", params={"StudyInstanceUID": generate_uid()}, headers=_SEARCH)
        self._check_access(answer)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and answer.status != HTTPStatus.NOT_IMPLEMENTED:
            raise PeerError(f"{self.peer} answers {status_text(answer)}: check the log of the service")

    def store(self, item: Item) -> Answer:
        """Send one object in one request, and again decompressed if the service only accepts that.

        Raises PeerError if the service denies access, PeerBroke if there is no response about the object.
        """
        try:
            encoded = files.content(item)
            answer = self._post(encoded)
            if _failure(answer, item) == _UNENCODED or answer.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
                answer = self._post(_decompressed(item)) if _is_compressed(item) else answer
        except DicomError as error:
            return files.unreadable(item, error)
        self._check_access(answer)
        if not answer.ok and answer.status not in _ABOUT_THE_OBJECT:
            raise PeerBroke(f"{self.peer} answers {status_text(answer)}: check the log of the service")
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
                f"{self.peer} answers a QIDO-RS search with {status_text(answer)}, expected a list of instances: "
                "allow the search there, or set `query = false` for this target"
            )
        return [str(first_value(item, _SOP_UID)) for item in found]

    def _request(self, method: str, path: str, *, body: bytes | None = None, **options: Any) -> Reply:
        url = self.peer.url.rstrip("/") + path
        return self.exchange(method, url, size=len(body or b""), body=body, **options)

    def _check_access(self, answer: Reply) -> None:
        """Raise PeerError for a status that denies every request, whatever is sent."""
        code = answer.status
        if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
            raise PeerError(f"{self.peer} answers {status_text(answer)}: check the token, the user or the certificate")
        if code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED) or answer.is_redirect:
            raise PeerError(f"{self.peer} answers {status_text(answer)}: check `stow_url`, which ends before /studies")


def ask(peer: WebPeer) -> float:
    """Verify the service with a search; returns its duration in seconds. Raises PeerError with the cause."""
    start = time.monotonic()
    with StowSession(peer) as session:
        session.ask()
    return time.monotonic() - start


def _outcome(answer: Reply, item: Item) -> Answer:
    failure, status = _failure(answer, item), status_text(answer)
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
    return None if failed is None else int(first_value(failed, _FAILURE) or 0x0110)


def _warning(answer: Reply, item: Item) -> str:
    if answer.status == HTTPStatus.OK:
        return ""
    code = first_value(_entry(answer, _REFERENCED, item) or {}, _WARNING)
    return status_text(answer) + (f", warning 0x{int(code):04X}" if code else "")


def _entry(answer: Reply, sequence: str, item: Item) -> Mapping[str, Any] | None:
    """Item of a sequence of a store response (PS3.18 table 10.5.3-3) that refers to `item`, None if there is none."""
    entries = values_at(answer.json(), sequence)
    return next((entry for entry in entries if first_value(entry, _REFERENCED_UID) == item.sop_uid), None)


def _is_compressed(item: Item) -> bool:
    return bool(files.header(item).file_meta.TransferSyntaxUID.is_compressed)


def _decompressed(item: Item) -> bytes:
    dataset: Dataset = files.whole(item)
    files.decompress(dataset)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()

"""DICOMweb client that reads: search by QIDO-RS (PS3.18 section 10.6), retrieval by WADO-RS (section 10.4)."""

from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from functools import partial
from hashlib import blake2b
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from glam_deploy.dicom.net.bounded_http import Reply
from glam_deploy.dicom.net.dicomweb import WebConnection, first_value, status_text
from glam_deploy.errors import PeerBroke, PeerDeclined, PeerError

PAGE = 211
"""Results of one search; an unusual number, so that a page of exactly this size was limited by it."""
MAX_PAGE = 64 << 20
"""Largest response to a search in bytes, for a service that ignores the limit: about 50,000 studies."""
_MAX_REDIRECTS = 5
_DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
_DICOM = 'multipart/related; type="application/dicom"'
Page = list[Mapping[str, Any]]
_TRANSIENT = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class NotFound(PeerDeclined):
    """The service answers 404 Not Found."""


class WebReader(WebConnection):
    """Searches and retrievals with one service. Making it sends no request; one thread at a time may use it.

    Raises PeerBroke if the service does not answer or reports an internal error; PeerDeclined if it declines this
    request (404, 403 and the like) and may answer others; PeerError if it denies every request. No message has a UID.
    """

    def search(
        self,
        path: str,
        tag: str,
        *,
        ask: Callable[[Callable[[], Page]], Page] = lambda request: request(),
        matching: Mapping[str, str] = MappingProxyType({}),
        limit: int | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Results of the search at `path` ("/studies"), page by page, as DICOM JSON (PS3.18 annex F).

        `tag`: the element that identifies a result, as 8 hexadecimal digits; results that the page before had are left
        out, and those without this element are given as they are. `ask` calls the function that requests a page, and
        may repeat it. `matching`: attributes and values that results must have. `limit`: results of one page, `PAGE` by
        default. Ends at the first page without new results, because a service may return fewer results than asked
        for although it has more. Raises PeerError for a service that repeats a full page, or pages before the last one.
        """
        offset, previous, pages, most = 0, frozenset[str](), set[bytes](), limit or PAGE
        while True:
            asked = {**matching, "limit": str(most), "offset": str(offset)}
            page = ask(partial(self.page, path, asked))
            found = {str(uid): item for item in page if (uid := first_value(item, tag)) is not None}
            fresh = {uid: item for uid, item in found.items() if uid not in previous}
            yield from (item for item in page if first_value(item, tag) is None)
            if not fresh:
                if found and len(page) == most:
                    raise self._repeats()
                return
            # one digest for each page: the smallest UID is the same in whatever order a page comes again
            mark = blake2b(min(fresh).encode(), digest_size=16).digest()
            if mark in pages:
                raise self._repeats()
            pages.add(mark)
            yield from fresh.values()
            offset, previous = offset + len(page), frozenset(found)

    def _repeats(self) -> PeerError:
        return PeerError(
            f"{self.peer} returns results that it has returned before: it ignores `offset`, so the others cannot be "
            "found. Export a list of the instances"
        )

    def page(self, path: str, parameters: Mapping[str, str]) -> Page:
        """The results of one request; an empty mapping for each that is no object of JSON."""
        query = urlencode(parameters, quote_via=quote)  # %20 for a space: + means one in forms only
        answer = self._request(path, "application/dicom+json", most=MAX_PAGE, params=query)
        if answer.status == HTTPStatus.NOT_FOUND and path.count("/") == 1:
            raise PeerError(f"{self.peer} answers 404 Not Found: check the URL, which ends before /studies")
        is_end = answer.status == HTTPStatus.NOT_FOUND and parameters.get("offset", "0") != "0"
        if is_end or answer.status == HTTPStatus.NO_CONTENT:
            return []
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            kind = NotFound if answer.status == HTTPStatus.NOT_FOUND else PeerDeclined
            raise kind(f"{self.peer} answers a QIDO-RS search with {status_text(answer)}, expected 200 OK")
        found = answer.json() if answer.content.strip() else []
        if not isinstance(found, list):
            raise PeerError(
                f"{self.peer} answers a QIDO-RS search with {status_text(answer)} and no list in JSON: check the URL, "
                "which ends before /studies"
            )
        return [item if isinstance(item, dict) else {} for item in found]

    def retrieve(self, path: str, *, most: int) -> bytes:
        """The DICOM file of the instance at `path`, in the transfer syntax in which it is stored.

        `most`: largest response in bytes. Raises PeerBroke for an incomplete response.
        """
        answer = self._request(path, f"{_DICOM}; transfer-syntax=*", most=most)
        if answer.status == HTTPStatus.NOT_ACCEPTABLE:  # a service that does not know the wildcard
            answer = self._request(path, _DICOM, most=most)
        if answer.status != HTTPStatus.OK:
            raise PeerDeclined(f"the service answers {status_text(answer)} for this instance")
        return file_in(answer)

    def _request(self, path: str, accept: str, *, most: int, **options: Any) -> Reply:
        url = root = self.peer.url.rstrip("/") + path
        for _ in range(_MAX_REDIRECTS):
            answer = self.exchange("GET", url, size=most, most=most, headers={"Accept": accept}, **options)
            if not answer.is_redirect:
                self._check(answer)
                return answer
            url, options = self._redirected(root, urljoin(url, answer.headers.get("Location", ""))), {}
        raise PeerError(f"{self.peer} redirects more than {_MAX_REDIRECTS} times: check the URL")

    def _redirected(self, root: str, url: str) -> str:
        """`url`, if it may get the credentials: the same host, with HTTPS if it was used before."""
        one, other = urlsplit(root), urlsplit(url)
        is_same = one.hostname == other.hostname and one.port == other.port and one.scheme == other.scheme
        is_upgrade = one.hostname == other.hostname and (one.scheme, other.scheme) == ("http", "https")
        if not (is_same or is_upgrade):
            place = f"{other.scheme}://{other.netloc.rpartition('@')[2]}"
            raise PeerError(f"{self.peer} redirects to another server, {place}: give its URL")
        return url

    def _check(self, answer: Reply) -> None:
        if answer.status in _DENIED:
            raise PeerError(f"{self.peer} answers {status_text(answer)}: check the token or the user and password")
        if answer.status in _TRANSIENT or (
            answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and answer.status != HTTPStatus.NOT_IMPLEMENTED
        ):
            raise PeerBroke(f"{self.peer} answers {status_text(answer)}: check the log of the service")


def file_in(answer: Reply) -> bytes:
    """The only part of a multipart/related response (RFC 2387), or a response that is a DICOM file itself.

    Raises PeerBroke if the response is incomplete, PeerDeclined if it is something else.
    """
    head = Message()
    head["Content-Type"] = answer.headers.get("Content-Type", "")
    if head.get_content_type() == "application/dicom":
        return answer.content
    boundary = head.get_param("boundary")
    if head.get_content_maintype() != "multipart" or not isinstance(boundary, str) or not boundary:
        raise PeerDeclined("the service answers without a DICOM file: expected multipart/related")
    content, mark = answer.content, b"--" + boundary.encode("latin-1", "replace")
    start = content.find(mark)
    body = content.find(b"\r\n\r\n", start + len(mark)) + 4
    end = content.find(b"\r\n" + mark, body)
    if start < 0 or body < 4 or end < 0:
        raise PeerBroke("the service answers with an incomplete multipart response")
    if not content.startswith(b"--", end + 2 + len(mark)):
        raise PeerDeclined("the service answers with several files for one instance")
    return content[body:end]

"""Single HTTP requests to a configured service: limited, without redirections and proxies, with errors as PeerError."""

from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any

import requests

from glam_deploy.dicom.net.bounded_http import Reply
from glam_deploy.dicom.net.delivery import SLOWEST
from glam_deploy.dicom.net.dicomweb import WebPeer, connect, failure_kind, status_text
from glam_deploy.errors import PeerBroke, PeerError

_DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class WebClient:
    """Requests to one service. Entering sends no request."""

    def __init__(self, peer: WebPeer) -> None:
        self.peer = peer

    def __enter__(self) -> "WebClient":
        self._http = connect(self.peer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Reply:
        """Send a request to the URL of the service followed by `path`; a response that is about this request.

        Raises PeerError if the service denies access or redirects, PeerBroke if it does not respond, is overloaded or
        fails. Errors name neither the path nor what the service wrote, because both may hold identifiers.
        """
        seconds = self.peer.timeout_s + len(body or b"") / SLOWEST
        try:
            answer = self._http.request(
                method, self.peer.url + path, seconds=seconds, body=body, headers=dict(headers or {}), **more
            )
        except requests.RequestException as error:
            raise PeerBroke(f"{self.peer} does not answer ({self._http.exceeded or failure_kind(error)})") from None
        status = status_text(answer)
        if answer.status in _DENIED:
            raise PeerError(f"{self.peer} answers {status}: check the secret, the user or the certificate")
        if answer.is_redirect:
            raise PeerError(f"{self.peer} answers {status}, and redirections are not followed: set the final URL")
        if answer.status in _LATER or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise PeerBroke(f"{self.peer} answers {status}: check the log of the service")
        return answer

    def refusal(self, answer: Reply) -> str:
        """Why the service refuses what was sent; "" if it has accepted it."""
        return "" if 200 <= answer.status < 300 else f"{self.peer} answers {status_text(answer)}"

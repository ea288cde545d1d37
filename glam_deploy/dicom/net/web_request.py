"""Single HTTP requests to a configured service: limited, without redirections and proxies, with errors as PeerError."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from glam_deploy.dicom.net.bounded_http import Reply
from glam_deploy.dicom.net.dicomweb import WebConnection, status_text
from glam_deploy.errors import PeerBroke, PeerError

_DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class WebClient(WebConnection):
    """Requests to one service. Entering sends no request."""

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
        url, size = self.peer.url + path, len(body or b"")
        answer = self.exchange(method, url, size=size, body=body, headers=dict(headers or {}), **more)
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

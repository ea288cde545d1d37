"""HTTP requests with limits: total time of a request, and size of its response.

`requests` only has a timeout for the next byte: a response of one byte per second never times out, and a compressed
response of 1.5 MB becomes 3 GB.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPResponse
from io import BufferedReader, BytesIO
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

from glam_deploy.dicom.net.budget import BoundedInput, Budget
from glam_deploy.dicom.net.verification import relax
from glam_deploy.json_records import parse_foreign_json

MAX_ANSWER = 1 << 20
"""Largest response in bytes, including headers and chunk sizes, unless a request allows more; a response about ten
objects has 20,000."""
_STEP = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An HTTP response of any status."""

    status: int
    content: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    """Names in any case."""
    is_redirect: bool

    @property
    def ok(self) -> bool:
        return self.status < 400

    def json(self) -> Any:
        """The content as of `parse_foreign_json`, None if it is not JSON."""
        try:
            return parse_foreign_json(self.content)
        except (ValueError, RecursionError):
            return None


class BoundedHttp:
    """HTTP session with limited requests, without redirections, proxies and password files."""

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s`: time limit to connect, and to receive the next byte."""
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Accept-Encoding"] = "identity"
        self._timeout_s = timeout_s
        self._budget = Budget()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _Adapter(self._budget))

    def request(
        self,
        method: str,
        url: str,
        *,
        seconds: float,
        body: bytes | None = None,
        most: int = MAX_ANSWER,
        **options: Any,
    ) -> Reply:
        """Send a request; `seconds`: time limit from the first byte sent to the last byte of the response.

        `most`: largest response in bytes, including headers. Raises requests.RequestException; if a limit was exceeded,
        `exceeded` names it.
        """
        self._budget.start(seconds, most)
        data = None if body is None else _Body(body, self._budget)
        with self.session.request(
            method, url, data=data, timeout=self._timeout_s, allow_redirects=False, stream=True, **options
        ) as answer:
            self._check_encoding(answer.headers)
            parts = BytesIO()
            while part := _read(answer.raw):
                parts.write(part)
            return Reply(
                status=answer.status_code,
                content=parts.getvalue(),
                headers=answer.headers,
                is_redirect=answer.is_redirect,
            )

    @property
    def exceeded(self) -> str:
        """The limit that the last request exceeded, "" for none."""
        return self._budget.exceeded

    def close(self) -> None:
        self.session.close()

    def _check_encoding(self, headers: Mapping[str, str]) -> None:
        if headers.get("Content-Encoding", "").lower() not in ("", "identity"):
            self._budget.exceeded = "its response is compressed, although identity encoding was requested"
            raise requests.RequestException


def _read(raw: Any) -> bytes:
    """The next bytes, not decoded. Raises requests.RequestException, as `requests` does."""
    try:
        return bytes(raw.read(_STEP, decode_content=False))
    except Exception as error:  # of urllib3, http.client or the system
        raise requests.ConnectionError(type(error).__name__) from None


class _Body(BytesIO):
    """Body of a request, which http.client reads in pieces; checks the time limit at each piece."""

    def __init__(self, content: bytes, budget: Budget) -> None:
        super().__init__(content)
        self._budget = budget

    def read(self, size: int | None = -1, /) -> bytes:
        self._budget.check_time()
        return super().read(size)


class _Adapter(HTTPAdapter):
    """HTTP adapter whose connections read responses within a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        context = create_urllib3_context()
        relax(context)
        super().init_poolmanager(*args, ssl_context=context, **options)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _pool_of(HTTPConnectionPool, HTTPConnection, self._answer_of),
            "https": _pool_of(HTTPSConnectionPool, HTTPSConnection, self._answer_of),
        }

    def _answer_of(self, connection: Any, *args: Any, **options: Any) -> HTTPResponse:
        answer = HTTPResponse(connection, *args, **options)
        answer.fp = BufferedReader(BoundedInput(answer.fp.detach(), connection, self._budget))
        return answer


def _pool_of(pool: type, connection: type, answer_of: Callable[..., HTTPResponse]) -> type:
    bounded = type("BoundedConnection", (connection,), {"response_class": staticmethod(answer_of)})
    return type("BoundedPool", (pool,), {"ConnectionCls": bounded})

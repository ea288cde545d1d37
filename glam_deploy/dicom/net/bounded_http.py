"""HTTP requests with limits: total time of a request, and size of its response.

`requests` only has a timeout for the next byte: a response of one byte per second never times out, and a compressed
response of 1.5 MB becomes 3 GB.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPResponse
from io import BufferedReader, BytesIO, RawIOBase
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

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
        """The content parsed as JSON, None if it is not JSON."""
        try:
            return json.loads(self.content)
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
        self._budget = _Budget()
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


class _Budget:
    """Remaining time of a request, and count of the bytes of its response."""

    def __init__(self) -> None:
        self.start(0, 0)

    def start(self, seconds: float, most: int) -> None:
        self._seconds, self._deadline, self._bytes, self._most = seconds, time.monotonic() + seconds, 0, most
        self.exceeded = ""

    def check_time(self) -> float:
        """Remaining seconds. Raises TimeoutError after the deadline."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            self.exceeded = f"no complete response within {self._seconds:.0f} s"
            raise TimeoutError
        return left

    def take(self, count: int) -> None:
        """Count bytes of a response. Raises OSError beyond the limit of the request."""
        self._bytes += count
        if self._bytes > self._most:
            self.exceeded = f"a response of more than {self._most} bytes"
            raise OSError


class _Body(BytesIO):
    """Body of a request, which http.client reads in pieces; checks the time limit at each piece."""

    def __init__(self, content: bytes, budget: _Budget) -> None:
        super().__init__(content)
        self._budget = budget

    def read(self, size: int | None = -1, /) -> bytes:
        self._budget.check_time()
        return super().read(size)


class _Bounded(RawIOBase):
    """Raw input of a connection, read within a budget."""

    def __init__(self, raw: Any, connection: Any, budget: _Budget) -> None:
        self._raw, self._connection, self._budget = raw, connection, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        longest = self._connection.gettimeout()
        self._connection.settimeout(min(longest or 60.0, self._budget.check_time()))
        try:
            count = self._raw.readinto(buffer)
        except TimeoutError:
            self._budget.check_time()
            raise
        finally:
            self._connection.settimeout(longest)
        self._budget.take(count or 0)
        return int(count) if count is not None else None

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Adapter(HTTPAdapter):
    """HTTP adapter whose connections read responses within a budget."""

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _pool_of(HTTPConnectionPool, HTTPConnection, self._answer_of),
            "https": _pool_of(HTTPSConnectionPool, HTTPSConnection, self._answer_of),
        }

    def _answer_of(self, connection: Any, *args: Any, **options: Any) -> HTTPResponse:
        answer = HTTPResponse(connection, *args, **options)
        answer.fp = BufferedReader(_Bounded(answer.fp.detach(), connection, self._budget))
        return answer


def _pool_of(pool: type, connection: type, answer_of: Callable[..., HTTPResponse]) -> type:
    bounded = type("BoundedConnection", (connection,), {"response_class": staticmethod(answer_of)})
    return type("BoundedPool", (pool,), {"ConnectionCls": bounded})

"""A multipart/related body (RFC 2387), part by part as its bytes come."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


class Part(Protocol):
    """What takes a part."""

    def write(self, chunk: bytes) -> object: ...

    def close(self) -> None: ...


MOST_PARTS = 1000
MOST_HEAD_BYTES = 1 << 13
"""Of the headers of one part."""
MOST_AFTER = 1 << 16
"""Bytes after the closing boundary, which are passed over."""


class Malformed(Exception):
    """The body, or its Content-Type, is not multipart/related as it should be."""


class TooManyParts(Exception):
    """The body has more than `MOST_PARTS` parts."""


def boundary_of(content_type: str) -> tuple[bytes, str]:
    """The boundary and the type of the parts of a Content-Type, as STOW-RS wants it. Raises Malformed."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    # RFC 2046 section 5.1.1
    if kind != b"multipart/related" or not 0 < len(boundary) <= 70:
        raise Malformed("expected multipart/related with a boundary")
    return boundary, options.get(b"type", b"").decode("latin-1").lower()


def read_parts(chunks: Iterable[bytes], boundary: bytes, begin: Callable[[Mapping[str, str]], Part]) -> None:
    """Give every part to what `begin` makes of its headers (names in lower case).

    Raises Malformed where the body ends early or is none of the kind, TooManyParts; a part under way is then never
    closed, and the rest of the body is not read.
    """
    reader, after = _Reader(begin), 0
    parser = MultipartParser(boundary, reader.callbacks())
    try:
        for chunk in chunks:
            after += len(chunk) if reader.ended else 0
            if after > MOST_AFTER:
                raise Malformed(f"more than {MOST_AFTER} bytes follow on the closing boundary")
            parser.write(chunk)
    except MultipartParseError as error:
        raise Malformed(f"the body is no multipart body with this boundary ({type(error).__name__})") from None
    if not reader.ended:
        raise Malformed("the body ends before its closing boundary")


class _Reader:
    """The parser's callbacks."""

    def __init__(self, begin: Callable[[Mapping[str, str]], Part]) -> None:
        self._begin = begin
        self._part: Part | None = None
        self._headers: dict[str, str] = {}
        self._name, self._value = b"", b""
        self._parts = self._head_bytes = 0
        self.ended = False

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._take_name,
            "on_header_value": self._take_value,
            "on_header_end": self._take_header,
            "on_headers_finished": self._start,
            "on_part_data": self._take_data,
            "on_part_end": self._close,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._headers.clear()
        self._parts, self._head_bytes = self._parts + 1, 0
        if self._parts > MOST_PARTS:
            raise TooManyParts(f"more than {MOST_PARTS} parts in one request")

    def _take_name(self, data: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        self._name += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        self._value += data[start:end]

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > MOST_HEAD_BYTES:
            raise Malformed(f"the headers of a part have more than {MOST_HEAD_BYTES} bytes")

    def _take_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name, self._value = b"", b""

    def _start(self) -> None:
        self._part = self._begin(dict(self._headers))

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        self._part.write(data[start:end])

    def _close(self) -> None:
        assert self._part is not None
        self._part.close()
        self._part = None

    def _end(self) -> None:
        self.ended = True

"""Byte streams of an encoded data set: plain or deflated in a file, both with a limit in bytes."""

import os
import zlib
from io import BytesIO
from typing import BinaryIO, NoReturn, Protocol

from glam_deploy.errors import DicomError, IncompleteObject

_STEP = 1 << 16
"""Bytes read or inflated in one step."""
OBJECT = "the object"


class Stream(Protocol):
    """Sequential bytes; a read allocates no more memory than the bytes asked for."""

    def tell(self) -> int:
        """Position, in bytes from the beginning of the file or of the inflated data set."""

    def peek(self, count: int) -> bytes:
        """The next bytes without moving the position; fewer at the end."""

    def read(self, count: int) -> bytes:
        """The next bytes; fewer at the end. Raises DicomError beyond the limit."""

    def advance(self, count: int) -> int:
        """Move the position forward by up to `count` bytes; by how many, fewer at the end. Raises DicomError beyond the
        limit.
        """


class FileStream:
    """Bytes of a file from `start` on; skipped bytes do not count against the limit."""

    def __init__(self, file: BinaryIO, start: int, limit: int, part: str = OBJECT) -> None:
        """`part`: what the limit is of, for the message."""
        self._file, self._at, self._limit, self._left, self._part = file, start, limit, limit, part
        self._size = file.seek(0, os.SEEK_END)
        file.seek(start)

    def tell(self) -> int:
        return self._at

    def peek(self, count: int) -> bytes:
        found = self._file.read(min(count, self._size - self._at))
        self._file.seek(self._at)
        return found

    def read(self, count: int) -> bytes:
        count = min(count, self._size - self._at)
        self._left -= count
        if self._left < 0:
            _too_many(self._limit, self._part)
        found = self._file.read(count)
        self._at += len(found)
        return found

    def advance(self, count: int) -> int:
        count = min(count, self._size - self._at)
        self._at += count
        self._file.seek(self._at)
        return count


class InflatedStream:
    """Inflated bytes of the deflate stream (RFC 1951) from `start` of a file on."""

    def __init__(self, file: BinaryIO, start: int, limit: int, most: int, part: str = OBJECT) -> None:
        """`limit`: of the bytes read, named `part`. `most`: of those that are inflated, skipped ones included."""
        self._file, self._at, self._limit, self._left, self._most = file, 0, limit, limit, most
        self._part = part
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._ahead, self._used = b"", 0
        file.seek(start)

    def tell(self) -> int:
        return self._at

    def peek(self, count: int) -> bytes:
        while len(self._ahead) - self._used < count and (more := self._inflate()):
            self._ahead, self._used = self._ahead[self._used :] + more, 0
        return self._ahead[self._used : self._used + count]

    def read(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            _too_many(self._limit, self._part)
        return self._next(count)

    def _next(self, count: int) -> bytes:
        """Up to `count` bytes, which do not count as read."""
        if self._at + count > self._most:
            _too_many(self._most, OBJECT)
        found = self._take_inflated(count)
        if len(found) < count:
            found = self._inflate_rest(found, count)
        self._at += len(found)
        return found

    def advance(self, count: int) -> int:
        start = self._at
        while (left := start + count - self._at) and self._next(min(left, _STEP)):
            pass
        return self._at - start

    def _take_inflated(self, count: int) -> bytes:
        """Up to `count` bytes that are already inflated."""
        found = self._ahead[self._used : self._used + count]
        self._used += len(found)
        return found

    def _inflate_rest(self, start: bytes, count: int) -> bytes:
        """`start`, extended to `count` bytes by inflating more."""
        parts = BytesIO()
        parts.write(start)
        while parts.tell() < count and (more := self._inflate()):
            self._ahead, self._used = more, 0
            parts.write(self._take_inflated(count - parts.tell()))
        return parts.getvalue()

    def _inflate(self) -> bytes:
        """Up to `_STEP` more bytes; none at the end."""
        try:
            while not self._inflater.eof:
                deflated = self._inflater.unconsumed_tail or self._file.read(_STEP)
                found = self._inflater.decompress(deflated, _STEP)
                if found or not deflated:
                    return found
        except zlib.error:
            raise DicomError("the deflated data set (PS3.5 annex A.5) is damaged: export the object again") from None
        return b""


def _too_many(limit: int, part: str) -> NoReturn:
    raise DicomError(f"{part} has more than {limit} bytes, too many for one mammogram: export the object again")


def skip(stream: Stream, count: int) -> None:
    """Move the position forward by `count` bytes. Raises IncompleteObject beyond the end, DicomError beyond the
    limit.
    """
    missing = count - stream.advance(count)
    if missing:
        raise IncompleteObject(
            f"the data set ends {missing} bytes before the end of an element: export the complete object again"
        )

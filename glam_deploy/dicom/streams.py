"""Byte streams of an encoded data set: plain or deflated in a file, both with a limit in bytes."""

import os
import zlib
from io import BytesIO
from typing import BinaryIO, NoReturn, Protocol

from glam_deploy.errors import DicomError

_STEP = 1 << 16
"""Bytes read or inflated in one step."""


class Stream(Protocol):
    """Sequential bytes; a read allocates no more memory than the bytes asked for."""

    def tell(self) -> int:
        """Position, in bytes from the beginning of the file or of the inflated data set."""

    def peek(self, count: int) -> bytes:
        """The next bytes without moving the position; fewer at the end."""

    def read(self, count: int) -> bytes:
        """The next bytes; fewer at the end. Raises DicomError beyond the limit."""

    def skip(self, count: int) -> None:
        """Move the position forward. Raises DicomError beyond the end or the limit."""


class FileStream:
    """Bytes of a file from `start` on; skipped bytes do not count against the limit."""

    def __init__(self, file: BinaryIO, start: int, limit: int) -> None:
        self._file, self._at, self._limit, self._left = file, start, limit, limit
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
            _too_many(self._limit)
        found = self._file.read(count)
        self._at += len(found)
        return found

    def skip(self, count: int) -> None:
        self._at += count
        if self._at > self._size:
            _truncated(self._at - self._size)
        self._file.seek(self._at)


class InflatedStream:
    """Inflated bytes of the deflate stream (RFC 1951) from `start` of a file on; skipped bytes count too."""

    def __init__(self, file: BinaryIO, start: int, limit: int) -> None:
        self._file, self._at, self._limit = file, 0, limit
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
        if self._at + count > self._limit:
            _too_many(self._limit)
        found = self._take_inflated(count)
        if len(found) < count:
            found = self._inflate_rest(found, count)
        self._at += len(found)
        return found

    def skip(self, count: int) -> None:
        while count:
            found = len(self.read(min(count, _STEP)))
            if not found:
                _truncated(count)
            count -= found

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


def _too_many(limit: int) -> NoReturn:
    raise DicomError(f"the object has more than {limit} bytes, too many for one mammogram: export it again")


def _truncated(missing: int) -> NoReturn:
    raise DicomError(
        f"the data set ends {missing} bytes before the end of an element: export the complete object again"
    )

"""Limits on what a peer answers: total time, and number of bytes."""

import time
from io import RawIOBase
from typing import Any


class Budget:
    """Remaining time of an exchange with a peer, and count of the bytes of its response."""

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


class BoundedInput(RawIOBase):
    """Raw input of a connection, read within a budget."""

    def __init__(self, raw: Any, connection: Any, budget: Budget) -> None:
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

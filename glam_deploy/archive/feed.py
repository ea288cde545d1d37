"""Entries of a source from a thread of its own, because listing may be slow; a second thread counts them."""

import queue
import threading
from contextlib import suppress

from glam_deploy.archive.sources.base import Entry, Source
from glam_deploy.errors import GlamError

AHEAD = 1000
"""Entries that are listed before they are needed."""


class Feed:
    """The entries of a source, one after another, without waiting; used as a context manager."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._listed: queue.Queue[Entry | Exception | None] = queue.Queue(AHEAD)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._list, self._count)]
        self.ended = False
        """Whether all entries were taken."""
        self.total: int | None = None
        """Number of entries; None while they are counted."""
        self.passed_over = 0
        """Number of other files that were listed so far."""

    def __enter__(self) -> "Feed":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def take(self) -> Entry | None:
        """The next entry; None if none is listed yet, or all were taken (`ended`). Raises the errors of `entries`."""
        if self.ended:
            return None
        try:
            listed = self._listed.get_nowait()
        except queue.Empty:
            return None
        if isinstance(listed, Exception):
            self.ended = True
            raise listed
        self.ended = listed is None
        return listed

    def _list(self) -> None:
        try:
            for entry in self._source.entries(self._pass_over):
                if not self._put(entry):
                    return
            self._put(None)
        except Exception as error:
            self._put(error)

    def _pass_over(self, _: str) -> None:
        self.passed_over += 1

    def _put(self, listed: Entry | Exception | None) -> bool:
        """Wait for a free place; False if the feed was closed."""
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._listed.put(listed, timeout=0.2)
                return True
        return False

    def _count(self) -> None:
        with suppress(GlamError):  # `take` raises it
            self.total = self._counted()

    def _counted(self) -> int | None:
        number = 0
        for _ in self._source.entries():
            if self._stop.is_set():
                return None
            number += 1
        return number

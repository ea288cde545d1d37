"""Overlapping of stages by threads: preparing the next items and finishing the previous ones.

Each function keeps the order of the items and holds a bounded number of them, which limits the memory. It saves time if
the work releases the GIL, as decoders, numpy, OpenCV, compression and file access do. The threads have a lower priority
than the caller's, because a network on all cores waits for its slowest thread.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum
from itertools import groupby, islice
from typing import TypeVar

NICENESS = 10
"""Niceness added to the threads: they get about a tenth of a core that a thread of the caller also uses."""

Item = TypeVar("Item")
Made = TypeVar("Made")


class _End(Enum):
    """Sentinel for the end of the items, which differs from all results of `work`."""

    END = 0


def lower_priority() -> None:
    """Lower the priority of this thread permanently, and of threads that it starts. No effect except on Linux."""
    if sys.platform == "linux":  # niceness is per thread, contrary to POSIX: setpriority(2), "C library/kernel"
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


def ahead(work: Callable[[Item], Made], items: Iterable[Item], *, threads: int = 1) -> Generator[Made, None, None]:
    """Yield `work(item)` for each item, in order; up to `threads` results are computed in advance, in as many threads.

    One further thread iterates over the items, so the iterator may be slow too. Exceptions of either are raised at the
    position of their item. Closing the generator cancels work that has not started, and waits for work that has.
    """
    source = iter(items)

    def begin() -> Future[Made] | _End:
        item = next(source, _End.END)
        return _End.END if item is _End.END else workers.submit(work, item)

    # a thread inherits the priority of the one that starts it
    workers, iterating = ThreadPoolExecutor(threads), ThreadPoolExecutor(1, initializer=lower_priority)
    try:
        begun = deque(iterating.submit(begin) for _ in range(threads))
        while True:
            begun.append(iterating.submit(begin))
            made = begun.popleft().result()
            if isinstance(made, _End):
                return
            yield made.result()
    finally:
        iterating.shutdown(cancel_futures=True)
        workers.shutdown(cancel_futures=True)


def behind(
    work: Callable[[Item], Made], items: Iterable[Item], *, depth: int = 1, threads: int = 1
) -> Generator[Made, None, None]:
    """Yield `work(item)` for each item, in order, computed in other threads while the caller produces the next item.

    Up to `depth` items wait for the threads or are processed by them; a thread has released its item when the result is
    there. Closing the generator, and an error or Ctrl-C while the next item is produced, waits for the work on all
    previous items.
    """
    with ThreadPoolExecutor(threads, initializer=lower_priority) as workers:
        waiting: deque[Future[Made]] = deque()
        for item in items:
            if len(waiting) == depth:
                yield waiting.popleft().result()
            waiting.append(workers.submit(_work_on_last, work, [item]))
        while waiting:
            yield waiting.popleft().result()


def _work_on_last(work: Callable[[Item], Made], items: list[Item]) -> Made:
    """`work` on the only item of a list, which is taken out: an executor keeps arguments until after the result."""
    return work(items.pop())


def in_batches(items: Iterable[Item], size: int, *, kind: Callable[[Item], Hashable]) -> Iterator[list[Item]]:
    """Group consecutive items of one `kind` into lists of `size`, in order; all others are lists of one item.

    Items of the kind None are never grouped. An item is taken from `items` only when the lists before it were taken.
    """
    for same, group in groupby(items, key=kind):
        while found := list(islice(group, 1 if same is None else size)):
            yield from [found] if len(found) == size else ([one] for one in found)


class Turns:
    """Lets threads that work at the same time do the end of their work one after another, in the order of numbers."""

    def __init__(self) -> None:
        self._next = 0
        self._changed = threading.Condition()

    @contextmanager
    def after(self, number: int, work: Callable[[], Made]) -> Iterator[Made]:
        """Context with the result of `work`, which is entered when those of all lower numbers have ended.

        Numbers begin at 0, and each is used once. An error of `work` ends the turn too.
        """
        try:
            made = work()
        except BaseException:
            with self._turn(number):
                raise
        with self._turn(number):
            yield made

    @contextmanager
    def _turn(self, number: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._next == number)
            try:
                yield
            finally:
                self._next += 1
                self._changed.notify_all()

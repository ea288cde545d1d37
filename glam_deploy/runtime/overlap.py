"""Work of other threads beside the caller's own: the next things are made ready, the last ones brought to an end.

Each has one thread, which keeps things in order, and few things at once, which bounds the memory. Worth it where the
work leaves Python alone: decoders, numpy, OpenCV, compression and file systems do. The threads give way to the
caller's: a network on all cores waits for its slowest part, and theirs is the time that it
leaves.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from typing import TypeVar

GIVE_WAY = 10
"""Steps of niceness: about a tenth of a core that a thread of the caller's also wants."""

Item = TypeVar("Item")
Made = TypeVar("Made")


class _End(Enum):
    """Distinguishes the end of the items from every thing that `work` makes."""

    END = 0


def give_way() -> None:
    """Lower the priority of this thread, and of threads that it starts, for good. Linux only: elsewhere a no-op."""
    if sys.platform == "linux":  # where each thread has its own, against POSIX: setpriority(2), "C library/kernel"
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + GIVE_WAY)


def ahead(work: Callable[[Item], Made], items: Iterable[Item], *, depth: int = 1) -> Generator[Made, None, None]:
    """`work` of each item, in order; up to `depth` are made, or being made, that the caller has not asked for yet.

    A thread of its own takes the items and works on them, so that a generator of items may be slow too. What either
    raises comes when its turn does. Closing this leaves out what has not begun, and waits for what has.
    """
    source = iter(items)

    def step() -> Made | _End:
        item = next(source, _End.END)
        return _End.END if item is _End.END else work(item)

    thread = ThreadPoolExecutor(1, initializer=give_way)
    try:
        begun = deque(thread.submit(step) for _ in range(depth))
        while True:
            begun.append(thread.submit(step))
            made = begun.popleft().result()
            if made is _End.END:
                return
            yield made
    finally:
        thread.shutdown(cancel_futures=True)


def behind(work: Callable[[Item], Made], items: Iterable[Item], *, depth: int = 1) -> Generator[Made, None, None]:
    """`work` of each item, in order, in a thread of its own, while the caller's makes the next item.

    The next item is taken while up to `depth` wait for that thread, or are worked on. Closing this, or an error or
    Ctrl-C while the next item is made, waits for the work on those that were made before.
    """
    with ThreadPoolExecutor(1, initializer=give_way) as thread:
        waiting: deque[Future[Made]] = deque()
        for item in items:
            if len(waiting) == depth:
                yield waiting.popleft().result()
            waiting.append(thread.submit(work, item))
        while waiting:
            yield waiting.popleft().result()

"""Whether Python's other threads go on while one works: a network's would else wait between its stages."""

import sys
from collections.abc import Callable
from threading import Event, Thread

MANY = 50_000
"""Turns that another thread gets where the work leaves Python alone for some tenths of a second: a million on a quiet
machine, under 200,000 were seen on a busy one.
Where the work keeps Python's lock it gets some thousands, before that begins.
"""


def turns_during(work: Callable[[], object]) -> int:
    """Turns of an empty loop beside `work`, which runs in a thread of its own."""
    begun, done, turns = Event(), Event(), 0

    def job() -> None:
        begun.set()
        work()
        done.set()

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # a thread that waits for the lock gets it soon
    try:
        thread = Thread(target=job)
        thread.start()
        begun.wait()
        while thread.is_alive() and not done.is_set():
            turns += 1
        thread.join()
    finally:
        sys.setswitchinterval(usual)
    return turns if done.is_set() else 0

"""Threads beside the caller's: order, errors at their turn, bounds, and an end that loses nothing.

A wait of GUARD seconds is never spent unless a test fails.
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier, Event, current_thread, get_native_id
from weakref import ref

import pytest

from glam_deploy.runtime import overlap
from glam_deploy.runtime.overlap import NICENESS, Turns, ahead, behind

GUARD = 60


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("depth", [1, 3])
def test_everything_in_order(count: int, depth: int) -> None:
    assert list(ahead(lambda n: n * n, range(count), threads=depth)) == [n * n for n in range(count)]
    assert list(behind(lambda n: n * n, range(count), depth=depth)) == [n * n for n in range(count)]


def test_nothing_that_work_makes_is_taken_for_the_end() -> None:
    assert list(ahead(lambda n: None, range(3))) == [None] * 3
    assert list(behind(lambda n: None, range(3))) == [None] * 3


@pytest.mark.parametrize("depth", [1, 3])
def test_ahead_is_as_far_ahead_as_told_and_no_further(depth: int) -> None:
    begun, asked, surprises = [Event() for _ in range(20)], 0, []

    def work(n: int) -> int:
        begun[n].set()
        surprises.extend([n] if n >= asked + depth else [])
        return n

    found = ahead(work, range(10), threads=depth)
    for n in range(10):
        asked += 1
        assert next(found) == n
        assert all(begun[k].wait(GUARD) for k in range(min(n + depth + 1, 10)))
    assert not surprises


def test_ahead_works_on_as_many_items_at_the_same_time_as_told() -> None:
    """None of three is done before all of them are begun, and their order stays."""
    together = Barrier(3)

    def work(n: int) -> int:
        together.wait(GUARD)
        return n

    assert list(ahead(work, range(9), threads=3)) == list(range(9))


def test_ahead_takes_the_items_in_its_thread() -> None:
    def items() -> Iterator[str]:
        yield current_thread().name
        yield current_thread().name

    assert current_thread().name not in list(ahead(str, items()))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
def test_both_give_way_to_the_caller() -> None:
    def niceness(_: object = None) -> int:
        return os.getpriority(os.PRIO_PROCESS, get_native_id())

    here = niceness()
    lower = min(here + NICENESS, 19)
    assert list(ahead(niceness, range(1))) == list(behind(niceness, range(1))) == [lower]
    assert niceness() == here and lower > here, "the caller's own priority stays"


def test_behind_works_while_the_next_item_is_made_and_never_on_two() -> None:
    begun, made = [Event(), Event()], Event()
    busy = 0

    def items() -> Iterator[int]:
        yield 0
        assert begun[0].wait(GUARD)
        made.set()
        yield 1

    def work(n: int) -> int:
        nonlocal busy
        busy += 1
        assert busy == 1
        begun[n].set()
        assert made.wait(GUARD)
        busy -= 1
        return n

    assert list(behind(work, items())) == [0, 1]


@pytest.mark.parametrize("depth", [1, 3])
def test_behind_lets_as_many_wait_as_told_and_no_more(depth: int) -> None:
    made: list[int] = []
    enough = Event()

    def items() -> Iterator[int]:
        for n in range(8):
            made.append(n)
            if n == depth:
                enough.set()
            yield n

    def work(n: int) -> int:
        assert enough.wait(GUARD)  # nothing is done before so many were made
        return n

    found = behind(work, items(), depth=depth)
    for n in range(8):
        assert next(found) == n
        assert len(made) <= n + depth + 1
    assert list(found) == []


def test_behind_has_released_an_item_when_its_result_is_there() -> None:
    class View:
        pass

    views: list[ref[View]] = []

    def items() -> Iterator[View]:
        for _ in range(2000):
            view = View()
            views.append(ref(view))
            yield view

    for n, _ in enumerate(behind(lambda view: None, items())):
        assert n >= len(views) - 2 or views[n]() is None  # the generator itself has the last ones


def refuse(n: int) -> int:
    if n == 2:
        raise KeyError(n)
    return n


def broken_items() -> Iterator[int]:
    yield from (0, 1)
    raise KeyError(2)


@pytest.mark.parametrize(
    "found",
    [
        ahead(refuse, range(5)),
        ahead(refuse, range(5), threads=3),
        ahead(str, broken_items(), threads=3),
        behind(refuse, range(5)),
        behind(refuse, range(5), depth=3),
        behind(str, broken_items()),
    ],
    ids=["ahead", "far ahead", "items of ahead", "behind", "far behind", "items of behind"],
)
def test_an_error_comes_after_what_was_done_before_it(found: Iterator[object]) -> None:
    assert str(next(found)) == "0"
    with pytest.raises(KeyError):
        list(found)
    assert list(found) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_what_was_made_before_a_stop_is_worked_on(stop: type[BaseException]) -> None:
    stopping, done = Event(), []

    def items() -> Iterator[int]:
        yield 0
        yield 1
        stopping.set()
        raise stop

    def work(n: int) -> None:
        if n == 1:
            assert stopping.wait(GUARD)
        done.append(n)

    with pytest.raises(stop):
        list(behind(work, items()))
    assert done == [0, 1]


def test_closing_leaves_out_what_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, closed, done = Barrier(5), Event(), []

    class Watched(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            closed.set()
            super().shutdown(wait)

    def work(n: int) -> int:
        if n:
            begun.wait(GUARD)
            assert closed.wait(GUARD)
        done.append(n)
        return n

    monkeypatch.setattr(overlap, "ThreadPoolExecutor", Watched)
    with closing(ahead(work, range(9), threads=4)) as found:
        assert next(found) == 0
        begun.wait(GUARD)  # as many as there are threads
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_ends_are_in_order_whatever_is_done_first() -> None:
    """The first waits for the others; one that fails does not hold up those after it."""
    turns, others, ended = Turns(), Barrier(4), []

    def work(n: int) -> int:
        others.wait(GUARD)
        if n == 2:
            raise KeyError(n)
        return n * n

    def whole(n: int) -> None:
        with turns.after(n, lambda: work(n)) as made:
            ended.append(made)

    with ThreadPoolExecutor(4) as pool:
        begun = [pool.submit(whole, n) for n in (3, 2, 1, 0)]
    assert ended == [0, 1, 9]
    assert isinstance(begun[1].exception(), KeyError)

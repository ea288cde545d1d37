"""Who has a slot, with slots that cost nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, cast

import pytest

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.chain import Run, SlotPool
from glam_deploy.gpu.slot import Slot


class Stub:
    """A slot that gives back what it was given, and notices a second owner."""

    def __init__(self) -> None:
        self.value: object = None
        self.raises: list[BaseException] = []

    def start(self, value: object) -> None:
        assert self.value is None, "the slot has an owner already"
        self.value = value

    def collect(self) -> object:
        if self.raises:
            raise self.raises.pop()
        value, self.value = self.value, None
        return value


def pool_of(limit: int) -> tuple[SlotPool, list[Stub]]:
    made: list[Stub] = []

    def make() -> Slot:
        made.append(Stub())
        return cast(Slot, made[-1])

    return SlotPool(make, limit=limit), made


def begin(pool: SlotPool, value: object) -> Run:
    slot = pool.take()
    return pool.start(slot, lambda: cast(Any, slot).start(value))


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_many_threads(limit: int) -> None:
    pool, made = pool_of(limit)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: begin(pool, n).result(), range(10_000)))
    assert found == list(range(10_000))
    assert len(made) <= limit


def test_threads_that_ask_late_and_in_any_order() -> None:
    pool, _ = pool_of(2)

    def several(first: int) -> list[object]:
        runs = [begin(pool, first + n) for n in range(5)]
        return [run.result() for run in reversed(runs)]

    with ThreadPoolExecutor(8) as threads:
        for first, found in zip(count(0, 5), threads.map(several, range(0, 5000, 5)), strict=False):
            assert found == [first + n for n in (4, 3, 2, 1, 0)]


def test_a_slot_is_made_when_none_is_free() -> None:
    pool, made = pool_of(3)
    for n in range(4):
        assert begin(pool, n).result() == n
    assert len(made) == 1
    runs = [begin(pool, n) for n in range(7)]
    assert len(made) == 3
    assert [run.result() for run in runs] == list(range(7))


def refuse() -> None:
    raise ValueError("not this one")


@pytest.mark.parametrize("launch", [refuse, lambda: pytest.fail("stopped")])
def test_a_launch_that_fails_gives_the_slot_back(launch: Callable[[], None]) -> None:
    pool, made = pool_of(1)
    with pytest.raises((ValueError, pytest.fail.Exception)):
        pool.start(pool.take(), launch)
    assert begin(pool, 1).result() == 1
    assert len(made) == 1


def test_a_wait_that_was_interrupted_can_be_taken_up_again() -> None:
    pool, made = pool_of(1)
    run = begin(pool, 1)
    made[0].raises.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run.result()
    assert begin(pool, 2).result() == 2
    assert run.result() == 1


def test_an_interrupt_while_a_slot_is_returned_leaves_it_in_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, made = pool_of(1)
    run = begin(pool, 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pool._changed, "notify", lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
        run.finish()
    assert run.result() == 1
    for n in range(2, 5):
        assert begin(pool, n).result() == n
    assert len(made) == 1


def test_another_error_than_the_gpus_is_that_of_its_run_alone() -> None:
    pool, made = pool_of(1)
    run = begin(pool, 1)
    made[0].raises.append(MemoryError())
    made[0].value = None
    assert begin(pool, 2).result() == 2
    with pytest.raises(MemoryError):
        run.result()


def test_a_failure_is_everybodys() -> None:
    pool, made = pool_of(2)
    first, second = begin(pool, 1), begin(pool, 2)
    made[0].raises.append(BackendRunError("the GPU fell off"))
    for _ in range(2):
        with pytest.raises(BackendRunError, match=r"^the GPU fell off$"):
            first.result()
        with pytest.raises(BackendRunError, match=r"Restart the process\. Cause: the GPU fell off"):
            pool.take()
    assert second.result() == 2


def test_a_slot_that_cannot_be_made_leaves_its_place() -> None:
    pool, made = pool_of(1)
    working, pool._make = pool._make, cast(Any, refuse)
    with pytest.raises(ValueError, match="not this one"):
        pool.take()
    pool._make = working
    assert begin(pool, 1).result() == 1
    assert len(made) == 1

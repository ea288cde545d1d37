"""Slots, lent to one owner at a time, and what is under way in them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Lock

from glam_deploy.errors import BackendRunError
from glam_deploy.runtime.slot import Collected, Slot


class SlotPool:
    """Up to `limit` slots, made when they are first needed. Safe to use from any number of threads.

    A run that was started holds its slot until its results are on the host. Whoever needs a slot when all are held so
    finishes the oldest run first: a caller that starts several runs before asking for any result cannot block itself,
    and a run whose result nobody asks for costs no slot.
    """

    def __init__(self, make: Callable[[], Slot], *, limit: int) -> None:
        self.limit = limit
        self._make = make
        self._made = 0
        self._free: list[Slot] = []
        self._under_way: list[Run] = []
        self._changed = Condition()
        self._fault: BackendRunError | None = None

    def take(self) -> Slot:
        """A slot for the caller alone, which waits for one if it must. Give it back, or start a run in it.

        Raises BackendRunError where the GPU has failed, or has no memory for another slot.
        """
        while True:
            with self._changed:
                self._require_sound()
                if self._free:
                    return self._free.pop()
                if self._made < self.limit:
                    self._made += 1
                    break
                if not self._under_way:
                    self._changed.wait()
                    continue
                oldest = self._under_way[0]
            oldest.finish()
        return self._new()

    def give(self, slot: Slot) -> None:
        """The slot is free again."""
        with self._changed:
            self._free.append(slot)
            self._changed.notify()

    def start(self, slot: Slot, launch: Callable[[], None]) -> "Run":
        """Launch work in a slot that the caller has taken; the slot comes back by itself, at the latest with an error.

        Raises BackendRunError.
        """
        try:
            with self.guarded():
                launch()
        except BaseException:
            self.give(slot)
            raise
        run = Run(self, slot)
        with self._changed:
            self._under_way.append(run)
            self._changed.notify()
        return run

    def end(self, run: "Run", slot: Slot) -> None:
        """For `Run`: its results are on the host, or lost."""
        with self._changed:
            self._under_way.remove(run)
            self._free.append(slot)
            self._changed.notify()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Calls of the GPU. One that fails ends the use of the pool: CUDA's errors stay until the process ends."""
        try:
            yield
        except BackendRunError as error:
            with self._changed:
                self._fault = self._fault or error
                self._changed.notify_all()
            raise

    def _require_sound(self) -> None:
        if self._fault:
            raise BackendRunError(
                f"the GPU failed earlier in this process, and this pipeline gives no more results. Restart the "
                f"process. What failed: {self._fault}"
            ) from self._fault

    def _new(self) -> Slot:
        try:
            return self._make()
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify()
            raise


class Run:
    """Work under way in a slot."""

    def __init__(self, pool: SlotPool, slot: Slot) -> None:
        self._pool = pool
        self._slot: Slot | None = slot
        self._lock = Lock()
        self._outcome: Collected | BackendRunError | None = None

    def finish(self) -> Collected | BackendRunError:
        """Wait for the work, take its results and free the slot; whoever comes first does it."""
        with self._lock:
            if self._slot is not None:
                self._outcome = self._collect(self._slot)
                self._pool.end(self, self._slot)
                self._slot = None
            assert self._outcome is not None
            return self._outcome

    def result(self) -> Collected:
        """What the work has left on the host. Raises BackendRunError for work that failed."""
        outcome = self.finish()
        if isinstance(outcome, BackendRunError):
            raise outcome
        return outcome

    def _collect(self, slot: Slot) -> Collected | BackendRunError:
        try:
            with self._pool.guarded():
                return slot.collect()
        except BackendRunError as error:
            return error

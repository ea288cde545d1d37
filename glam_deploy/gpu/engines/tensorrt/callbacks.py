"""What the builder says while it works, and how it is stopped: the classes that the library calls back."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import cache
from threading import Event, Thread
from typing import Any

from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.gpu.engines.tensorrt.report import REPORT_BEGINS

Progress = Callable[[str, float], None]
"""Told what the builder does now, and how much of the engine is done, 0..1. Called from other threads."""

EXPECTED_REMARKS = ("patch_locations has Int64 binding", "is unused or used only at compile-time", "logger passed into")
"""Warnings about what is meant so: int64 locations, inputs that only the map needed, a logger for each object."""


def logger(library: Library) -> Any:
    """The library's logger. It keeps `errors`, `warnings` and the layer `report`, and shows none of its thousands."""
    base = library.trt.ILogger

    class Logger(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.warnings: list[str] = []
            self.report = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (base.INTERNAL_ERROR, base.ERROR):
                self.errors.append(message)
            elif severity == base.WARNING and not any(remark in message for remark in EXPECTED_REMARKS):
                self.warnings.append(message)
            elif message.startswith(REPORT_BEGINS):
                self.report = f"{self.report}\n{message}".lstrip()

    return _for_ever(Logger())


@cache
def _for_ever(log: Any) -> Any:
    """Never freed: the library keeps the first logger that it gets for what belongs to no object, as its registry."""
    return log


def monitor(library: Library, progress: Progress, stopped: Event) -> Any:
    """The library's progress monitor; the build ends at the first step after `stopped` is set.

    An exception must not enter the library, whose binding prints it and takes it for a wish to cancel: whatever is
    raised in a callback stops the build and is kept as `error`. Source: the binding's pyCore.cpp, `PyProgressMonitor`.
    """
    phases = Phases()

    class Monitor(library.trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.error: BaseException | None = None

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            with self._kept():
                phases.begin(name, parent, steps)
                progress(name, phases.done)

        def step_complete(self, name: str, step: int) -> bool:
            with self._kept():
                phases.step(name, step)
                progress(name, phases.done)
            return not stopped.is_set()

        def phase_finish(self, name: str) -> None:
            with self._kept():
                phases.end(name)

        @contextmanager
        def _kept(self) -> Iterator[None]:
            try:
                yield
            except BaseException as error:
                self.error = self.error or error
                stopped.set()

    return Monitor()


class Phases:
    """How much is done, from steps of nested phases: one step of a phase is all that runs inside it meanwhile."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[str | None, int, int]] = {}
        """Name -> name of the phase around it, steps done, steps in all."""
        self.done = 0.0
        """0..1; it never goes back."""

    def begin(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps begins inside another, or as the outermost."""
        self._running[name] = (parent, 0, max(steps, 1))

    def step(self, name: str, step: int) -> None:
        """A phase has done its step of this index."""
        parent, _, steps = self._running.get(name, (None, 0, 1))
        self._running[name] = (parent, step + 1, steps)
        self.done = max(self.done, min(self._fraction(None), 1.0))

    def end(self, name: str) -> None:
        """A phase is over."""
        self._running.pop(name, None)

    def _fraction(self, parent: str | None) -> float:
        # a copy: the library calls from several threads
        inside = [(name, done, steps) for name, (outer, done, steps) in list(self._running.items()) if outer == parent]
        return sum((done + self._fraction(name)) / steps for name, done, steps in inside)


def interruptible(build: Callable[[], Any], stopped: Event) -> Any:
    """The result of `build`, run beside the main thread: only that one gets Ctrl-C, and nothing may be raised in the
    library's callbacks. `stopped` is set when it comes, and the build is waited for.
    """
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(build())
        except BaseException as error:
            future.set_exception(error)

    worker = Thread(target=run, name="engine builder", daemon=True)
    try:
        worker.start()
        return future.result()
    finally:
        stopped.set()
        if worker.ident is not None:  # Ctrl-C may come before it runs
            wait([future])

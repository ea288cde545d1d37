"""Callbacks of the TensorRT builder: log messages, progress, and cancellation."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import cache
from threading import Event, Thread
from typing import Any

from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.gpu.engines.tensorrt.report import REPORT_BEGINS

Progress = Callable[[str, float], None]
"""Called with the builder's current phase and the completed share of the engine, 0..1; from other threads."""

EXPECTED_REMARKS = ("patch_locations has Int64 binding", "is unused or used only at compile-time", "logger passed into")
"""Warnings that are expected and ignored: int64 locations, inputs that only the fused map needs, several loggers."""


def logger(library: Library) -> Any:
    """Create a logger that stores `errors`, `warnings` and the layer `report`, and discards all other messages."""
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

    return _kept_alive(Logger())


@cache
def _kept_alive(log: Any) -> Any:
    """Keep a logger for the life of the process, because global objects of the library use its first logger."""
    return log


def monitor(library: Library, progress: Progress, stopped: Event) -> Any:
    """Create a progress monitor that cancels the build at the first step after `stopped` is set.

    An exception in a callback cancels the build and is stored as `error`. It must not reach the library, because the
    binding prints it and treats it as a cancellation. Source: the binding's pyCore.cpp, `PyProgressMonitor`.
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
    """Completed share of a build, from the steps of nested phases: nested phases divide one step of their parent."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[str | None, int, int]] = {}
        """Name -> name of the parent phase, completed steps, total steps."""
        self.done = 0.0
        """Completed share, 0..1; it never decreases."""

    def begin(self, name: str, parent: str | None, steps: int) -> None:
        """Start a phase with this number of steps; `parent` is None for an outermost phase."""
        self._running[name] = (parent, 0, max(steps, 1))

    def step(self, name: str, step: int) -> None:
        """Record that a phase has completed the step of this index."""
        parent, _, steps = self._running.get(name, (None, 0, 1))
        self._running[name] = (parent, step + 1, steps)
        self.done = max(self.done, min(self._fraction(None), 1.0))

    def end(self, name: str) -> None:
        """End a phase."""
        self._running.pop(name, None)

    def _fraction(self, parent: str | None) -> float:
        # a copy: the library calls from several threads
        inside = [(name, done, steps) for name, (outer, done, steps) in list(self._running.items()) if outer == parent]
        return sum((done + self._fraction(name)) / steps for name, done, steps in inside)


def interruptible(build: Callable[[], Any], stopped: Event) -> Any:
    """Run `build` in another thread and return its result, so that Ctrl-C can interrupt it.

    Ctrl-C raises KeyboardInterrupt in the main thread, which would otherwise be inside a callback of the library.
    `stopped` is set then, and the build is joined.
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
        if worker.ident is not None:  # None if Ctrl-C came before the thread started
            wait([future])

"""What a build tells meanwhile, and how it is stopped."""

import gc
import os
import signal
import threading
import weakref
from threading import Event

import pytest
from support import tensorrt as support_tensorrt

from glam_deploy.gpu.engines.tensorrt.callbacks import Phases, interruptible, logger, monitor


def test_nested_phases_fill_the_steps_around_them() -> None:
    phases = Phases()
    phases.begin("Building engine", None, 4)
    phases.step("Building engine", 0)
    assert phases.done == pytest.approx(1 / 4)
    phases.begin("Timing", "Building engine", 10)
    phases.step("Timing", 4)
    assert phases.done == pytest.approx((1 + 5 / 10) / 4)
    phases.begin("One node", "Timing", 2)
    phases.step("One node", 0)
    assert phases.done == pytest.approx((1 + (5 + 1 / 2) / 10) / 4)


def test_progress_never_goes_back_and_ends_at_all() -> None:
    phases = Phases()
    phases.begin("outer", None, 2)
    phases.begin("inner", "outer", 2)
    phases.step("inner", 1)
    assert phases.done == pytest.approx(0.5)
    phases.end("inner")
    phases.begin("inner", "outer", 2)
    phases.step("inner", 0)
    assert phases.done == pytest.approx(0.5)
    for step in range(3):  # more than it promised
        phases.step("outer", step)
    assert phases.done == 1.0


def test_phases_that_nobody_began_or_that_have_no_steps() -> None:
    phases = Phases()
    phases.step("unknown", 3)
    phases.end("never begun")
    phases.begin("empty", None, 0)
    assert 0 <= phases.done <= 1


def test_monitor_tells_phases_and_asks_to_stop() -> None:
    told: list[tuple[str, float]] = []
    stopped = Event()
    asked = monitor(support_tensorrt.library(), lambda *what: told.append(what), stopped)
    asked.phase_start("Building engine", None, 2)
    assert asked.step_complete("Building engine", 0) is True
    stopped.set()
    assert asked.step_complete("Building engine", 1) is False
    asked.phase_finish("Building engine")
    assert told == [("Building engine", 0.0), ("Building engine", 0.5), ("Building engine", 1.0)]


def test_error_while_telling_stops_the_build_and_is_kept() -> None:
    def fail(phase: str, done: float) -> None:
        raise BrokenPipeError("nobody reads")

    stopped = Event()
    asked = monitor(support_tensorrt.library(), fail, stopped)
    asked.phase_start("Building engine", None, 2)
    assert asked.step_complete("Building engine", 0) is False
    assert isinstance(asked.error, BrokenPipeError)


@pytest.mark.parametrize("error", [ValueError("of the library"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", [("phase_start", "a", None, 2), ("step_complete", "a", 0), ("phase_finish", "a")])
def test_no_error_enters_the_library(
    monkeypatch: pytest.MonkeyPatch, call: tuple[object, ...], error: BaseException
) -> None:
    """The binding would print it and cancel the build, which then "gives no reason"."""

    def fail(*_: object) -> None:
        raise error

    for name in ("begin", "step", "end"):
        monkeypatch.setattr(Phases, name, fail)
    stopped = Event()
    asked = monitor(support_tensorrt.library(), lambda *what: None, stopped)
    name, *arguments = call
    assert not getattr(asked, str(name))(*arguments)
    assert asked.error is error
    assert stopped.is_set()


def test_report_in_two_messages_is_kept_whole() -> None:
    log = logger(support_tensorrt.library())
    for name in "ab":
        log.log(log.VERBOSE, f"Layers:\nName: {name}")
        log.log(log.VERBOSE, "else")
    assert log.report == "Layers:\nName: a\nLayers:\nName: b"


def test_log_keeps_what_is_worth_telling() -> None:
    log = logger(support_tensorrt.library())
    log.log(log.ERROR, "no kernel")
    log.log(log.INTERNAL_ERROR, "no memory")
    log.log(log.WARNING, "weights are subnormal")
    log.log(log.WARNING, "Make sure input patch_locations has Int64 binding.")
    log.log(log.WARNING, "Input Tensor saliency_global is unused or used only at compile-time, but is kept.")
    log.log(log.WARNING, "The logger passed into createInferBuilder differs from one already registered.")
    log.log(log.INFO, "loaded")
    log.log(log.VERBOSE, "Layers:\nName: a")
    log.log(log.VERBOSE, "and so on")
    assert (log.errors, log.warnings) == (["no kernel", "no memory"], ["weights are subnormal"])
    assert log.report == "Layers:\nName: a"


def test_a_log_outlives_what_it_was_made_for() -> None:
    """The library may speak through the first one long after."""
    alive = weakref.ref(logger(support_tensorrt.library()))
    gc.collect()
    assert alive() is not None


def test_result_and_errors_of_the_other_thread() -> None:
    def fail() -> None:
        raise ValueError("of the build")

    assert interruptible(lambda: threading.current_thread() is not threading.main_thread(), Event()) is True
    with pytest.raises(ValueError, match="of the build"):
        interruptible(fail, Event())


def test_ctrl_c_stops_the_other_thread_and_waits_for_it() -> None:
    stopped, ended = Event(), Event()

    def build() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped.wait(timeout=60)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        interruptible(build, stopped)
    assert ended.is_set()

"""The kernel checks, run for real on kernels compiled for the CPU: they pass what is right and see what is wrong."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from glam_bench.gpu.clock import Work
from glam_bench.gpu.workbench import Bench, random_weights
from glam_bench.measurements import kernel_times, kernels
from glam_bench.measurements.kernels import Check
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream


@pytest.fixture(scope="module")
def bench(gpu: Gpu) -> Bench:
    return Bench(gpu.index)


def place(bench: Bench) -> Iterator[Check]:
    return kernels.check_place(bench, [["smallest", "empty"], ["equal parts"]])


def standardize(bench: Bench) -> Iterator[Check]:
    return kernels.check_standardize(bench, [["float32 mirrored", "one pixel"]])


def propose(bench: Bench) -> Iterator[Check]:
    return kernels.check_propose(bench, [["tied"], ["NaN"], ["benign flat"]], (1, 3))


def crop(bench: Bench) -> Iterator[Check]:
    return kernels.check_crop(bench, (1,), (1, 6))


def fuse(bench: Bench) -> Iterator[Check]:
    return kernels.check_fuse(bench, (1,), (2,))


def examine(bench: Bench) -> Iterator[Check]:
    return kernels.check_examine(bench, (2,))


def head(bench: Bench) -> Iterator[Check]:
    return kernels.check_head(bench, (1, 2), (2,))


CHECKS = (place, standardize, propose, crop, fuse, examine, head)
COUNTS = {"place": 4, "standardize": 1, "propose": 6, "crop": 2, "fuse": 6, "examine": 3, "head": 8}


@pytest.mark.parametrize("check", CHECKS)
def test_the_kernels_pass(bench: Bench, check: Callable[[Bench], Iterator[Check]]) -> None:
    found = kernels.summary(list(check(bench)))
    assert (found["checks"], found["missed"]) == (COUNTS[check.__name__], [])


class Wrong:
    """Kernels of which one gets arguments that it should not get, or with None is not launched."""

    def __init__(self, kernels: Any, name: str, wrong: dict[str, int] | None) -> None:
        self._kernels, self._name, self._wrong = kernels, name, wrong

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._kernels, name)
        if name != self._name:
            return method
        if self._wrong is None:
            return lambda stream, **arguments: None
        return lambda stream, **arguments: method(stream, **arguments | self._wrong)


@pytest.mark.parametrize(
    ("check", "wrong"),
    [(place, None), (standardize, {"n": 1}), (propose, {"k": 2}), (crop, None), (fuse, None), (examine, {"n": 1})],
)
def test_a_kernel_that_does_something_else_is_seen(
    bench: Bench,
    check: Callable[[Bench], Iterator[Check]],
    wrong: dict[str, int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench, "kernels", Wrong(bench.kernels, check.__name__, wrong))
    assert kernels.summary(list(check(bench)))["missed"]


def test_a_fusion_head_with_other_weights_is_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every check but that of one image, all of whose scores with weights are NaN."""
    other = {name: array[..., ::-1] for name, array in random_weights().items()}
    monkeypatch.setattr(kernels, "random_weights", lambda: other)
    assert len(kernels.summary(list(head(bench)))["missed"]) == 7


class OneLaunch:
    """In the place of a Timer: runs everything once."""

    def __init__(self, _gpu: Gpu, stream: Stream) -> None:
        self._stream = stream

    def per_launch_us(self, work: Work, before: Work | None = None) -> float:
        (before or work)()
        self._stream.synchronize()
        return 100.0 if before else 1.0


def test_every_step_is_timed_with_its_inputs_in_l2_and_without(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_times, "Timer", OneLaunch)
    found = kernel_times.timed(bench, 1, 1)
    assert found.keys() == {*kernel_times.bytes_moved(1, 1), "propose and crop"}
    assert all(row == {"warm": 1.0, "cold": 100.0} for row in found.values())

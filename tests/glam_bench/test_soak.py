"""What a soak sees: answers that are mixed up, errors, memory that grows. Pipelines here are functions."""

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from glam_bench.measurements.soak import Tally, distance, report, soak
from glam_deploy.agreement.answers import COMPARED
from glam_deploy.errors import BackendRunError, InternalError
from glam_deploy.gpu.device.gpu import Gpu

VIEWS: list[Any] = [0, 1, 2]
GPU = cast(Gpu, SimpleNamespace(used_bytes=1000))


def result(value: float, *, place: int = 0) -> Any:
    arrays = {name: np.full((2, 2), value, np.float32) for name in COMPARED}
    return SimpleNamespace(**arrays | {"patch_locations": np.array([[place, 16]]), "attention": None})


def sound(view: int) -> Any:
    return result(view / 10)


def soaked(pipeline: Callable[[int], Any], images: int = 200, goes_on: Callable[[], bool] = lambda: True) -> Tally:
    return soak(cast(Any, pipeline), GPU, VIEWS, images=images, threads=4, goes_on=goes_on)


def after(calls: int, other: Callable[[int], Any]) -> Callable[[int], Any]:
    """Sound for so many calls, then once `other`, then sound again."""
    numbers = count()
    return lambda view: other(view) if next(numbers) == calls else sound(view)


def test_a_sound_pipeline() -> None:
    tally = soaked(sound)
    assert (tally.done, tally.wrong, tally.other_bits, tally.errors) == (200, 0, 0, [])


@pytest.mark.parametrize("other", [lambda view: sound((view + 1) % 3), lambda view: result(view / 10, place=16)])
def test_the_answer_of_another_view_and_a_patch_elsewhere_are_wrong(other: Callable[[int], Any]) -> None:
    tally = soaked(after(77, other))
    assert (tally.done, tally.wrong) == (200, 1)


def test_rounding_is_counted_apart() -> None:
    tally = soaked(after(77, lambda view: result(view / 10 + 1e-6)))
    assert (tally.wrong, tally.other_bits) == (0, 1)


def test_nan_is_wrong() -> None:
    assert soaked(after(77, lambda _: result(np.nan))).wrong == 1


def test_an_image_that_fails_is_wrong_and_the_others_go_on() -> None:
    def fails(_: int) -> Any:
        raise BackendRunError("the GPU has failed")

    tally = soaked(after(77, fails))
    assert (tally.done, tally.wrong, tally.errors) == (200, 1, ["BackendRunError: the GPU has failed"])


def test_views_with_one_answer_cannot_show_a_mix_up() -> None:
    with pytest.raises(InternalError, match="a mix-up would not show"):
        soaked(lambda _: result(0.5))


def test_a_soak_ends_with_its_time() -> None:
    left = iter([True] * 50 + [False] * 10)
    assert soaked(sound, goes_on=lambda: next(left)).done == 50


def test_distance() -> None:
    def arrays(**more: Any) -> dict[str, np.ndarray]:
        return {"patch_locations": np.zeros((1, 2), np.int64), "y_global": np.array([0.25], np.float32), **more}

    assert distance(arrays(), arrays()) == 0
    assert distance(arrays(), arrays(y_global=np.array([0.5], np.float32))) == 0.25
    assert distance(arrays(), arrays(y_local=np.zeros(1))) == np.inf


def test_report_of_growing_memory() -> None:
    readings = [(n, 10**9 + 1000 * n, 5 * 10**9) for n in range(0, 1001, 10)]
    found = report(Tally(done=1000, wrong=2, readings=readings), seconds=10)
    assert (found["images_per_s"], found["wrong"]) == (100, 2)
    assert found["host_growth_bytes"] == pytest.approx(800_000)
    assert found["device_growth_bytes"] == pytest.approx(0, abs=1)
    assert report(Tally(), seconds=1)["host_growth_bytes"] is None

"""Raw views that the GPU places: what is the same as on the host, and what the host does meanwhile.

Run by test_on_fake_gpu.py.
"""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from support.chains import assert_same, on_gpu, on_host, raw_view, stage_engines

from glam_deploy.errors import BackendRunError, InputError
from glam_deploy.gpu import placing
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.kernels import staging
from glam_deploy.preprocess import place
from glam_deploy.records import Mammogram, PlacedView, View
from glam_deploy.runtime.pipeline import Pipeline

Pair = Callable[..., tuple[Pipeline, Pipeline]]


def thin() -> np.ndarray:
    pixels = np.zeros((700, 500), np.uint16)
    pixels[:, :150] = 1000
    return pixels


def changed(change: Callable[[np.ndarray], None], dtype: str = "float32") -> np.ndarray:
    pixels = raw_view(1, dtype=dtype).pixels.copy()
    change(pixels)
    return pixels


REFUSED = {
    "empty": lambda: np.zeros((600, 500), np.uint16),
    "constant": lambda: np.full((600, 500), 7, np.uint8),
    "thin": thin,
    "NaN": lambda: changed(lambda pixels: pixels.__setitem__((300, 100), np.nan)),
    "infinite": lambda: changed(lambda pixels: pixels.__setitem__((0, 0), np.inf)),
    "negative": lambda: changed(lambda pixels: pixels.__setitem__((5, 5), -1)),
    "background of 40": lambda: changed(lambda pixels: pixels.__iadd__(40), "uint16"),
    "divided": lambda: changed(lambda pixels: pixels.__setitem__(600, 0), "uint16"),
    "one column": lambda: np.ones((900, 1), np.uint16),
}
"""Views that `preprocess` refuses for each of its reasons, by type, range, breast or diagnosis."""


@pytest.mark.parametrize("why", REFUSED)
def test_a_refusal_is_that_of_the_host(pair: Pair, why: str) -> None:
    pixels = REFUSED[why]()
    host, device = pair(1)
    with pytest.raises(InputError) as expected:
        host(pixels, view="L-CC")
    with pytest.raises(InputError, match=f"^{re.escape(str(expected.value))}$") as found:
        device(pixels, view="L-CC")
    assert found.value.remedies == expected.value.remedies


def test_a_breast_on_the_other_side_is_refused_as_by_the_host(pair: Pair) -> None:
    mirrored = replace(raw_view(2), view=View.R_CC)
    for pipeline in pair(1):
        with pytest.raises(InputError, match="Laterality wrong or stored mirrored"):
            pipeline(mirrored)


def test_a_refused_view_keeps_no_slot_and_its_pending_says_it_again(pair: Pair) -> None:
    host, device = pair(1, slots=1)
    pending = device.submit(REFUSED["thin"](), view="L-CC")
    assert_same(device(raw_view(0)), host(raw_view(0)))
    for _ in range(2):
        with pytest.raises(InputError, match="remains after 100 erosions"):
            pending.result()


def test_a_refused_view_among_others(pair: Pair) -> None:
    host, device = pair(1)
    bad = Mammogram(pixels=thin(), view=View.L_CC)
    views = [raw_view(0), bad, raw_view(1, View.R_MLO), raw_view(2)]
    found = list(device.map(views, errors="return"))
    assert isinstance(found[1], InputError)
    for n in (0, 2, 3):
        assert_same(found[n], host(views[n]))
    with pytest.raises(InputError, match="erosions"):
        device.batch(views)


def test_views_placed_before_and_whole_ones_run_together(pair: Pair) -> None:
    host, device = pair(2)
    exam = [raw_view(0), place(raw_view(1, View.R_CC)), raw_view(2, View.L_MLO, dtype="float32"), raw_view(3)]
    for found, view in zip(device.batch(exam), exam, strict=True):
        assert_same(found, host(view))


@pytest.mark.parametrize("view", [View.L_MLO, View.R_MLO])
def test_a_view_stored_rotated_is_placed_by_the_host(pair: Pair, view: View) -> None:
    host, device = pair(1)
    upright = raw_view(1, view)
    rotated = replace(upright, pixels=upright.pixels[::-1, ::-1], half_turn=True)
    assert isinstance(device.prepare(rotated).view, PlacedView)
    assert_same(device(rotated), host(rotated))
    assert host(rotated).predictions == host(upright).predictions


def test_a_view_that_is_too_large_is_placed_by_the_host(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    host, device = pair(1)
    large = raw_view(0)
    monkeypatch.setattr(staging, "fits", lambda shape, dtype: False)
    assert isinstance(device.prepare(large).view, PlacedView)
    assert_same(device(large), host(large))
    with pytest.raises(InputError, match="erosions"):
        device.submit(thin(), view="L-CC")


def test_pixels_in_any_memory_layout(pair: Pair) -> None:
    host, device = pair(1)
    view = raw_view(4, View.R_MLO)
    scattered = replace(view, pixels=np.asfortranarray(view.pixels))
    found = device(scattered)
    assert_same(found, host(view))
    assert isinstance(found.input, PlacedView)
    assert found.input.pixels.flags.c_contiguous


def test_the_host_judges_while_the_network_runs(gpu: Gpu, driver: FakeDriver) -> None:
    """It waits for the placing alone, judges, and waits for the network afterwards."""
    device = on_gpu(stage_engines(), gpu=gpu, driver=driver)
    device(raw_view(0))
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch, driver.recorded() as recorded:
        judge = placing.judge
        patch.setattr(placing, "judge", lambda *given: (lines.extend(["judged"]), judge(*given))[1])
        pending = device.submit(raw_view(1))
        pending.result()
    waits = [line for line in recorded if line in {"cuGraphLaunch", "cuEventSynchronize", "cuStreamSynchronize"}]
    assert waits == ["cuGraphLaunch", "cuGraphLaunch", "cuEventSynchronize", "cuStreamSynchronize"]
    assert lines == ["judged"]
    engines = [n for n, line in enumerate(recorded) if line == "> host function"]
    assert len(engines) == 3
    assert engines[0] > recorded.index("cuEventSynchronize"), "the stand-in works as late as CUDA allows"


def test_a_gpu_that_finds_nothing_where_the_host_finds_a_breast_ends_the_pipeline(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, device = pair(1)
    found = placing.GpuPlacing.judge

    def blind(self: placing.GpuPlacing, view: Mammogram, located: object) -> object:
        return found(self, view, replace(located, found=None))  # type: ignore[type-var]

    monkeypatch.setattr(placing.GpuPlacing, "judge", blind)
    with pytest.raises(BackendRunError, match="the GPU finds no breast in an image"):
        device(raw_view(0))
    with pytest.raises(BackendRunError, match="Restart the process"):
        device(raw_view(0))


def test_a_slot_keeps_nothing_of_a_view_for_the_next(gpu: Gpu, driver: FakeDriver) -> None:
    host, device = on_host(stage_engines()), on_gpu(stage_engines(), gpu=gpu, driver=driver, slots=1)
    for shape in ((1300, 1000), (700, 600), (1300, 1000)):
        view = raw_view(5, shape=shape)
        assert_same(device(view), host(view))

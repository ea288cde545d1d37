"""The flow from image to result, on engines that cost nothing."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np
import pytest
from support.engines import FakeEngine, blocks, fake_engines, fake_identity, in_step, opened_fakes, squash

from glam_deploy.engines.base import OpenedEngines
from glam_deploy.errors import BackendRunError, InputError, UsageError
from glam_deploy.json_records import to_json
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, NetworkSpec
from glam_deploy.preprocess import from_standardized, place, prepare
from glam_deploy.records import Mammogram, Notice, Source, View
from glam_deploy.runtime.overlap import in_batches
from glam_deploy.runtime.pipeline import Image, Pipeline, is_raw
from glam_deploy.runtime.result import Prepared, Result

STEPS = ["preprocess", "global", "patches", "local", "fusion"]


def pipeline(patches: int = 1, *, network: NetworkSpec = GLAM_CONCATENATION) -> Pipeline:
    return Pipeline(opened_fakes(network=network), patches=patches, provenance={"bundle": {"id": "0" * 64}})


def breast(rows: int = 900, columns: int = 700, *, seed: int = 0) -> np.ndarray:
    """uint16, facing right: an even half disc with a bright square in it."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:rows, :columns]
    pixels = np.where((y - rows / 2) ** 2 + x**2 < (0.45 * rows) ** 2, 1000, 0).astype(np.uint16)
    row, column = int(rng.integers(rows // 4, rows // 2)), int(rng.integers(0, columns // 4))
    pixels[row : row + 60, column : column + 60] = 3000
    return pixels


@pytest.fixture(scope="module")
def standardized() -> np.ndarray:
    """float32 [2944, 1920], mean 0, standard deviation 1."""
    image = np.random.default_rng(3).random(GLAM.input_shape, dtype=np.float32)
    image[1000:1300, 400:900] += 2
    return ((image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)).astype(np.float32)


def assert_same(first: Result, second: Result) -> None:
    for field in ("y_global", "y_scale", "y_local", "saliency_global", "saliency_patches", "patch_locations"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


@pytest.mark.parametrize("patches", range(1, 7))
@pytest.mark.parametrize("network", [GLAM_CONCATENATION, GLAM])
def test_every_number_of_patches(standardized: np.ndarray, patches: int, network: NetworkSpec) -> None:
    result = pipeline(patches, network=network)(standardized)
    assert result.patch_locations.shape == (patches, 2)
    assert result.patch_locations.dtype == np.int64
    assert result.saliency_patches.shape == (patches, 2, 128, 128)
    for n, (row, column) in enumerate(result.patch_locations.tolist()):
        cells = squash(blocks(standardized[None, None, row : row + 512, column : column + 512], 4))[0]
        np.testing.assert_array_equal(result.saliency_patches[n], [cells, 1 - cells])
    np.testing.assert_allclose(result.y_local, result.saliency_patches.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_array_equal(result.y_global, result.y_scale.mean(0))
    assert (result.y_fusion is not None) == (network is GLAM)
    if network is GLAM:
        np.testing.assert_allclose(result.attention, [1 / patches] * patches, rtol=1e-6)


def test_scores_by_name(standardized: np.ndarray) -> None:
    plain, joint = (pipeline(network=each)(standardized).predictions for each in (GLAM_CONCATENATION, GLAM))
    assert list(plain) == ["y_global", "y_local"]
    assert list(joint) == ["y_global", "y_local", "y_fusion"]
    assert list(joint["y_fusion"]) == ["benign", "malignant"]


@pytest.mark.parametrize("view", View)
@pytest.mark.parametrize("flip", [False, True])
def test_raw_array_with_view_is_a_mammogram(view: View, flip: bool) -> None:
    mirrored = view.is_right != flip
    pixels = np.ascontiguousarray(breast()[:, ::-1]) if mirrored else breast()
    result = pipeline()(pixels, view=str(view), horizontal_flip=flip)
    assert_same(result, pipeline()(Mammogram(pixels=pixels, view=view, horizontal_flip=flip)))
    assert result.network_input.view == view
    assert result.network_input.placement.mirrored == mirrored


def test_a_placed_view_is_not_placed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    mammogram = Mammogram(pixels=breast(), view=View.L_CC)
    placed, expected = place(mammogram), pipeline()(mammogram)
    monkeypatch.setattr("glam_deploy.runtime.host_chain.place", None)
    assert_same(pipeline()(placed), expected)


def test_a_prepared_input_is_taken_as_it_is() -> None:
    prepared = prepare(Mammogram(pixels=breast(), view=View.L_CC))
    result = pipeline()(prepared)
    assert result.network_input is prepared
    assert_same(result, pipeline()(breast(), view="L-CC"))


def test_standardized_array(standardized: np.ndarray) -> None:
    result = pipeline()(standardized)
    assert_same(result, pipeline()(from_standardized(standardized, source=Source(name="array", kind="array"))))
    assert result.network_input.view is None
    assert result.saliency_in_source().shape == (2, *GLAM.input_shape)


@pytest.mark.parametrize("shape", [(900, 700), (3400, 2600)])
def test_the_map_comes_back_to_the_source(shape: tuple[int, int]) -> None:
    pixels = np.ascontiguousarray(breast(*shape)[:, ::-1])
    result = pipeline(2)(pixels, view="R-CC")
    back = result.saliency_in_source()
    assert back.shape == (2, *shape)
    assert back.dtype == np.float32
    assert result.saliency().shape == (2, *GLAM.input_shape)
    # the fake network's benign saliency is brightness: highest where the bright square is
    square = back[0][pixels == 3000]
    assert np.median(square) > back[0][pixels < 3000].mean() + 0.1


@pytest.mark.parametrize("patches", [0, 7, -1, 1.5])
def test_wrong_number_of_patches(patches: Any) -> None:
    with pytest.raises(UsageError, match="whole number from 1 to 6"):
        Pipeline(opened_fakes(), patches=patches, provenance={})


def test_without_a_number_of_patches_it_is_that_of_the_network() -> None:
    found = Pipeline(opened_fakes(), patches=None, provenance={})
    assert (found.patches, found.provenance["patches"]) == (1, 1)


@pytest.mark.parametrize("image", [[[0, 1]], None, 3, Mammogram])
def test_not_an_image(image: Any) -> None:
    with pytest.raises(
        UsageError, match=f"image has the type {type(image).__name__}, expected a Mammogram, .* a path, bytes"
    ):
        pipeline()(image)


@pytest.mark.parametrize("arguments", [{"view": "L-CC"}, {"horizontal_flip": True}])
def test_an_image_that_carries_its_view_takes_no_other(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="this image already has them"):
        pipeline()(Mammogram(pixels=breast(), view=View.L_CC), **arguments)


def test_unknown_view() -> None:
    with pytest.raises(UsageError, match="there is no view 'LCC', expected one of L-CC, R-CC, L-MLO, R-MLO"):
        pipeline()(breast(), view="LCC")


def test_a_flip_without_a_view_is_refused(standardized: np.ndarray) -> None:
    with pytest.raises(UsageError, match="horizontal_flip"):
        pipeline()(standardized, horizontal_flip=True)


def test_a_raw_array_without_view_is_refused() -> None:
    with pytest.raises(UsageError, match="pass view=, one of L-CC, R-CC, L-MLO, R-MLO"):
        pipeline()(breast())


@pytest.mark.parametrize("pixels", [np.zeros(GLAM.input_shape, np.float64), np.zeros((3, 4), np.float32)])
def test_an_array_that_is_not_standardized_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(InputError):
        pipeline()(pixels)


class Constant(FakeEngine):
    """A global module that says the same everywhere, for the classes named."""

    def __init__(self, *classes: int) -> None:
        super().__init__("global")
        self.classes = classes

    def _run(self, inputs: Any) -> Any:
        outputs = dict(super()._run(inputs))
        outputs["saliency_global"][:, self.classes] = 0.25
        return outputs


def with_global(engine: FakeEngine, patches: int = 1) -> Pipeline:
    opened = OpenedEngines(engines=fake_engines() | {"global": engine}, identity=fake_identity())
    return Pipeline(opened, patches=patches, provenance={})


def test_no_contrast_in_one_class(standardized: np.ndarray) -> None:
    result = with_global(Constant(1))(standardized)
    assert [notice.code for notice in result.notices] == ["no-contrast"]
    assert "saliency of malignant is constant" in result.notices[0].message
    cells = squash(blocks(standardized[None, None], 16)[0])  # only brightness was left to choose by
    windows = np.lib.stride_tricks.sliding_window_view(cells, (32, 32)).mean((2, 3), dtype=np.float64)
    row, column = result.patch_locations[0] // 16
    assert windows[row, column] == pytest.approx(windows.max(), abs=1e-6)


def test_no_contrast_at_all(standardized: np.ndarray) -> None:
    result = with_global(Constant(0, 1), patches=3)(standardized)
    assert [notice.code for notice in result.notices] == ["no-contrast"]
    assert "benign and malignant" in result.notices[0].message
    assert "all patches are at the upper-left corner" in result.notices[0].message
    assert result.patch_locations.tolist() == [[0, 0]] * 3


def test_contrast_needs_no_notice(standardized: np.ndarray) -> None:
    assert pipeline()(standardized).notices == ()


def test_notices_from_before_stay_in_front(standardized: np.ndarray) -> None:
    notice = Notice(code="label", message="A film label was left out.")
    sample = Mammogram(pixels=breast().astype(np.uint8), view=View.L_CC, notices=(notice,))
    codes = [n.code for n in with_global(Constant(0, 1))(sample).notices]
    assert codes[0] == "label"
    assert codes[-1] == "no-contrast"
    assert "8-bit" in codes


def test_timings_name_every_step(standardized: np.ndarray) -> None:
    timings = pipeline()(standardized).timings_ms
    assert list(timings) == STEPS
    assert all(value >= 0 for value in timings.values())


def test_provenance_is_json(standardized: np.ndarray) -> None:
    result = pipeline(2)(standardized)
    assert json.loads(json.dumps(result.provenance)) == {
        "bundle": {"id": "0" * 64},
        "engine": to_json(fake_identity()),
        "patches": 2,
    }


def test_numbers_that_are_not_finite_give_no_result(standardized: np.ndarray) -> None:
    broken = FakeEngine("global", offset={"y_scale": np.nan})
    with pytest.raises(BackendRunError, match="6 of 6 values of 'y_scale' are NaN or infinite"):
        with_global(broken)(standardized)


def test_a_submitted_view_gives_its_result_as_often_as_asked(standardized: np.ndarray) -> None:
    pending = pipeline(2).submit(standardized)
    assert pending.result() is pending.result()
    assert_same(pending.result(), pipeline(2)(standardized))
    assert_same(pipeline().submit(breast(), view="L-CC").result(), pipeline()(breast(), view="L-CC"))


def exam(standardized: np.ndarray) -> list[Image]:
    raw = [Mammogram(pixels=breast(seed=seed), view=View.L_CC) for seed in range(3)]
    return [raw[0], standardized, *raw[1:], prepare(raw[0])]


@pytest.mark.parametrize("several", [Pipeline.map, Pipeline.batch])
def test_several_views_in_their_order(standardized: np.ndarray, several: Callable[..., Iterable[Result]]) -> None:
    one, images = pipeline(2), exam(standardized)
    for found, image in zip(several(one, iter(images)), images, strict=True):
        assert_same(found, one(image))


def test_map_prepares_one_image_ahead_and_no_more(standardized: np.ndarray) -> None:
    taken = [Event() for _ in range(4)]
    for n, _ in enumerate(pipeline().map(taken[n].set() or standardized for n in range(4))):
        assert all(image.wait(60) for image in taken[: n + 2])
        assert not any(image.is_set() for image in taken[n + 2 :])


@pytest.mark.parametrize("streams", [2, 3])
@pytest.mark.parametrize("several", [Pipeline.map, Pipeline.batch])
def test_streams_are_views_beside_each_other(
    standardized: np.ndarray, several: Callable[..., Iterable[Result]], streams: int
) -> None:
    images = [np.roll(standardized, 300 * n, axis=0) for n in range(6)]
    beside = Pipeline(in_step(streams), patches=1, provenance={})
    assert beside.in_flight == streams
    for found, image in zip(several(beside, images), images, strict=True):
        assert_same(found, pipeline()(image))
        assert list(found.timings_ms) == STEPS


def test_an_error_in_a_stream_is_raised_with_its_own_result(standardized: np.ndarray) -> None:
    broken = {"global": FakeEngine("global", offset={"y_scale": np.nan})}
    opened = replace(opened_fakes(), engines=fake_engines() | broken, streams=2)
    pending = Pipeline(opened, patches=1, provenance={}).submit(standardized)
    for _ in range(2):
        with pytest.raises(BackendRunError, match="'y_scale'"):
            pending.result()


@pytest.mark.parametrize("errors", ["raise", "return"])
def test_an_error_of_the_images_comes_after_what_was_started_before(standardized: np.ndarray, errors: Any) -> None:
    def images() -> Iterator[np.ndarray]:
        yield from [standardized] * 4
        raise KeyError("no more")

    beside, found = Pipeline(replace(opened_fakes(), streams=3), patches=1, provenance={}), []
    with pytest.raises(KeyError, match="no more"):
        for result in beside.map(images(), errors=errors):
            found.append(result)
    assert len(found) == 4
    with pytest.raises(InputError):
        for result in beside.map([*[standardized] * 3, standardized[None]]):
            found.append(result)
    assert len(found) == 7


def test_what_is_prepared_elsewhere_gives_the_same(standardized: np.ndarray) -> None:
    one = pipeline(2)
    for image in exam(standardized):
        result = one(one.prepare(image))
        assert_same(result, one(image))
        assert list(result.timings_ms) == STEPS
    with pytest.raises(UsageError, match="this image already has them"):
        one(one.prepare(standardized), view="L-CC")


def test_time_of_preparing_is_counted_with_the_rest(standardized: np.ndarray) -> None:
    prepared = Prepared(view=pipeline().prepare(standardized).view, times_ms={"preprocess": 1e9})
    assert pipeline()(prepared).timings_ms["preprocess"] >= 1e9
    assert prepared.times_ms == {"preprocess": 1e9}


@pytest.mark.parametrize("several", [Pipeline.map, Pipeline.batch])
def test_an_image_that_cannot_be_used_ends_several(
    standardized: np.ndarray, several: Callable[..., Iterable[Result]]
) -> None:
    with pytest.raises(InputError):
        list(several(pipeline(), [standardized, np.zeros(GLAM.input_shape, np.float32), standardized]))


def test_neighbours_of_one_kind_run_together() -> None:
    raw = [Mammogram(pixels=np.zeros((1, 1)), view=View.L_CC) for _ in range(11)]
    array = np.zeros(1)
    images = [*raw[:6], array, raw[6], *raw[7:11], array, array]
    batches = list(in_batches(images, 4, kind=is_raw))
    sizes = [len(batch) for batch in batches]
    assert sizes == [4, 1, 1, 1, 4, 1, 1, 1]
    assert [id(image) for batch in batches for image in batch] == [id(image) for image in images]


def test_an_engine_of_the_host_has_no_slots() -> None:
    with pytest.raises(UsageError, match="engine 'fake' runs on the CPU and has no GPU slots"), pipeline().slot():
        pass
    with pytest.raises(UsageError, match="slots = 2: engine 'fake' runs on the CPU; remove slots"):
        Pipeline(opened_fakes(), patches=1, provenance={}, slots=2)


def test_the_caller_keeps_the_image(standardized: np.ndarray) -> None:
    frozen = standardized.copy()
    frozen.flags.writeable = False
    assert_same(pipeline()(frozen), pipeline()(standardized))


def calls() -> Iterator[np.ndarray]:
    yield from (breast(seed=seed) for seed in range(16))


def test_eight_threads_at_once() -> None:
    one = pipeline(3)
    expected = [one(pixels, view="L-MLO") for pixels in calls()]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pixels: one(pixels, view="L-MLO"), calls()))
    for first, second in zip(found, expected, strict=True):
        assert_same(first, second)
        assert list(first.timings_ms) == STEPS

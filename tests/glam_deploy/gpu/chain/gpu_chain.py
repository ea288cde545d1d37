"""The chain on the GPU says what the chain on the host says. Run by test_on_fake_gpu.py."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from support.chains import Eager, assert_same, raw_view

from glam_deploy.errors import BackendRunError
from glam_deploy.networks import GLAM, GLAM_CONCATENATION
from glam_deploy.preprocess import prepare
from glam_deploy.records import Mammogram, NetworkInput, View
from glam_deploy.runtime.pipeline import Pipeline

Pair = Callable[..., tuple[Pipeline, Pipeline]]
SMALL, LARGE = (1100, 800), (3300, 2400)
VIEWS = [
    {"view": View.L_CC, "dtype": "uint16", "shape": LARGE},
    {"view": View.R_MLO, "dtype": "float32", "shape": SMALL},
    {"view": View.R_CC, "dtype": "uint16", "shape": SMALL},
    {"view": View.L_MLO, "dtype": "uint8", "shape": SMALL, "flip": True},
    {"view": View.R_MLO, "dtype": "uint16", "shape": LARGE, "flip": True},
    {"view": View.L_CC, "dtype": "float32", "shape": LARGE, "flip": True},
]
"""Every view and dtype, mirrored and not; some have rows or columns cut off, others are padded."""


@pytest.fixture(scope="module")
def views() -> list[Mammogram]:
    return [raw_view(seed, **view) for seed, view in enumerate(VIEWS)]


@pytest.fixture(scope="module")
def standardized(views: list[Mammogram]) -> list[NetworkInput]:
    return [prepare(view) for view in views[:2]]


@pytest.mark.parametrize("patches", range(1, 7))
def test_raw_views(pair: Pair, views: list[Mammogram], patches: int) -> None:
    host, device = pair(patches, network=GLAM_CONCATENATION if patches % 2 else GLAM)
    for view in (views + views)[patches - 1 : patches + 1]:
        assert_same(device(view), host(view))


def test_what_a_view_leaves_behind_is_not_seen_by_the_next(pair: Pair, views: list[Mammogram]) -> None:
    """A large one first; then a small one of the same kind, through the recorded graph."""
    host, device = pair(2)
    for view in (views[0], views[2], views[3]):
        assert_same(device(view), host(view))


EXAMS = {2: [(0, 2, 3, 4), (4, 3, 3, 2)], 6: [(3, 2, 1, 0)]}


@pytest.mark.parametrize("patches", EXAMS)
def test_four_views_at_once(pair: Pair, views: list[Mammogram], patches: int) -> None:
    """With two patches the local graph's rows are brought into their slots, with six they lie there."""
    host, device = pair(patches, network=GLAM)
    for numbers in EXAMS[patches]:
        exam = [views[n] for n in numbers]
        for found, view in zip(device.batch(exam), exam, strict=True):
            assert_same(found, host(view))


def test_standardized_inputs(pair: Pair, standardized: list[NetworkInput]) -> None:
    host, device = pair(3)
    for prepared in standardized:
        found = device(prepared)
        assert_same(found, host(prepared))
        assert found.network_input is prepared
    assert_same(device(standardized[0].image), host(standardized[0].image))


def test_four_standardized_at_once(pair: Pair, standardized: list[NetworkInput]) -> None:
    host, device = pair(2)
    exam = standardized * 2
    for found, image in zip(device.batch(exam), exam, strict=True):
        assert_same(found, host(image))


def test_engines_that_cannot_be_recorded(pair: Pair, views: list[Mammogram]) -> None:
    host, device = pair(2, kind=Eager)
    for view in views[2:4]:
        assert_same(device(view), host(view))


@pytest.mark.parametrize("flat", [(0,), (1,), (0, 1)])
def test_maps_without_contrast(pair: Pair, standardized: list[NetworkInput], flat: tuple[int, ...]) -> None:
    host, device = pair(3, flat=flat)
    found = device(standardized[0])
    # the tissue of these views ends without a skin
    assert [notice.code for notice in found.notices] == ["hard-outline", "no-contrast"]
    assert_same(found, host(standardized[0]))


NOT_FINITE = {
    "saliency_global": (np.nan, "global engine: 44160 of 44160 values"),
    "y_scale": (np.inf, "global engine: 6 of 6 values"),
    "saliency_patches": (-np.inf, "local engine: 65536 of 65536 values"),
    "y_local": (np.nan, "fusion engine: 2 of 2 values"),
    "y_fusion": (np.nan, "fusion engine: 2 of 2 values"),
    "attention": (np.nan, "fusion engine: 2 of 2 values"),
}


@pytest.mark.parametrize("output", NOT_FINITE)
def test_numbers_that_are_not_finite(pair: Pair, standardized: list[NetworkInput], output: str) -> None:
    value, words = NOT_FINITE[output]
    host, device = pair(2, network=GLAM, wrong={output: value})
    with pytest.raises(BackendRunError, match=f"{words.split(':')[0]}: .* of '{output}' are NaN or infinite"):
        host(standardized[0])
    with pytest.raises(BackendRunError, match=f"{words} of '{output}' are NaN or infinite"):
        device(standardized[0])


def test_an_input_that_is_not_finite(pair: Pair, standardized: list[NetworkInput]) -> None:
    image = standardized[0].image.copy()
    image[5, 7] = np.nan
    for pipeline in pair():
        with pytest.raises(BackendRunError, match="global engine: 1 of 5652480 values of 'image' are NaN"):
            pipeline(replace(standardized[0], image=image))


def test_the_standardized_image_is_made_when_it_is_asked_for(pair: Pair, views: list[Mammogram]) -> None:
    host, device = pair()
    found, expected = device(views[2]), host(views[2])
    assert not isinstance(found.input, NetworkInput)
    np.testing.assert_array_equal(found.network_input.image, expected.network_input.image)
    assert found.network_input.crop_facts == expected.network_input.crop_facts


def test_steps_that_are_timed(pair: Pair, views: list[Mammogram]) -> None:
    result = pair()[1](views[2])
    assert list(result.timings_ms) == ["preprocess", "gpu"]
    assert min(result.timings_ms.values()) > 0

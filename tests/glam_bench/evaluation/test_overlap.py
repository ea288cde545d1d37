"""Dice and marks of maps: cases by hand, and the definitions over maps of full size."""

from typing import Any

import numpy as np
import pytest
from support.engines import small_view
from support.evaluation import SPOT
from support.tiny_bundle import write_tiny_bundle

import glam_deploy
from glam_bench.evaluation import overlap
from glam_bench.evaluation.localization import FALSE_POSITIVES, froc
from glam_bench.evaluation.overlap import THRESHOLDS, Marks, dice
from glam_deploy.preprocess import map_to_source
from glam_deploy.runtime.result import Result


def test_soft_dice_by_hand() -> None:
    """2 x 2 cells of 2 x 2 pixels. S: 0.5 on the left, 0.25 lower right; M: one pixel upper left and the whole lower
    right cell. sum(S M) = 0.5 + 4 * 0.25 = 1.5, sum(S) = 4 * 1.25 = 5, sum(M) = 5: 2 * 1.5 / 10."""
    saliency = np.array([[0.5, 0.0], [0.5, 0.25]], np.float32)
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    mask[2:, 2:] = True
    soft, by_threshold = dice(saliency, mask)
    assert soft == pytest.approx(0.3)
    at = dict(zip(THRESHOLDS, by_threshold, strict=True))
    assert at[0.25] == pytest.approx(2 * 5 / (12 + 5), abs=1e-6)  # three cells, all of the mask
    assert at[0.26] == pytest.approx(2 * 1 / (8 + 5), abs=1e-6)
    assert at[0.5] == pytest.approx(2 * 1 / (8 + 5), abs=1e-6)
    assert at[0.51] == 0


def test_dice_is_its_definition_over_pixels() -> None:
    """Against maps of full size, upsampled by nearest neighbour."""
    random = np.random.default_rng(1)
    saliency = random.random((46, 30)).astype(np.float32)
    mask = np.zeros((2944, 1920), bool)
    mask[700:1333, 411:977] = True
    mask &= random.random(mask.shape) < 0.7
    full = np.kron(saliency, np.ones((64, 64), np.float32)).astype(np.float64)
    soft, by_threshold = dice(saliency, mask)
    assert soft == pytest.approx(2 * full[mask].sum() / (full.sum() + mask.sum()), abs=1e-6)
    for index in (0, 24, 49, 98):
        above = full >= np.float32(THRESHOLDS[index])
        expected = 2 * (above & mask).sum() / (above.sum() + mask.sum())
        assert by_threshold[index] == pytest.approx(expected, abs=1e-6)


def test_a_lesion_outside_the_frame_counts_with_0() -> None:
    assert dice(np.ones((2, 2), np.float32), np.zeros((4, 4), bool)) == (0.0, (0.0,) * 99)
    assert dice(np.zeros((2, 2), np.float32), np.ones((4, 4), bool))[0] == 0


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Of `small_view`, with three patches."""
    folder = write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")
    with glam_deploy.load(folder, patches=3) as pipeline:
        return pipeline(small_view())


def test_maps_of_glam_are_the_global_the_local_and_their_mean(result: Result) -> None:
    maps = overlap.maps_of(result)
    assert list(maps) == ["global", "local", "fused"]
    enlarged = np.kron(maps["global"], np.ones((1, 4, 4), np.float32))
    np.testing.assert_allclose(maps["fused"], (maps["local"] + enlarged) / 2, atol=1e-7)
    np.testing.assert_array_equal(np.kron(maps["fused"], np.ones((1, 4, 4), np.float32)), result.saliency())
    row, column = result.patch_locations[-1] // 4
    patch = maps["local"][:, row : row + 128, column : column + 128]
    np.testing.assert_array_equal(patch, result.saliency_patches[-1])  # type: ignore[index]


def test_masks_and_maps_of_a_result_meet_in_the_network_frame(result: Result) -> None:
    """The spot of `small_view` is where the maps of its network are high: over maps of full size, by definition."""
    spot, elsewhere = np.zeros((2, 500, 400), bool)
    spot[SPOT] = True
    elsewhere[400:420, 10:30] = True
    in_frame = map_to_source(result.input.placement, result.saliency())[1]
    found = {(one.map, one.label): one.soft for one in overlap.overlaps(result, {"malignant": spot})}
    assert list(found) == [("global", "malignant"), ("local", "malignant"), ("fused", "malignant")]
    assert found["fused", "malignant"] > 0.6
    outside = result.saliency()[1].sum(dtype=float) - in_frame.sum(dtype=float)
    expected = 2 * in_frame[spot].sum(dtype=float) / (in_frame.sum(dtype=float) + outside + spot.sum())
    assert found["fused", "malignant"] == pytest.approx(expected, abs=1e-5)
    benign, malignant = overlap.marks(result, {"malignant": spot | elsewhere})
    assert (benign.label, benign.lesions, set(benign.hits)) == ("benign", 0, {None})
    assert (malignant.lesions, malignant.hits[0], malignant.hits.count(0)) == (2, 0, 1)
    assert malignant.scores[0] == pytest.approx(in_frame.max(), abs=1e-6)
    assert overlap.overlaps(result, {"malignant": np.zeros((500, 400), bool)}) == ()


def marks_in(saliency: np.ndarray, numbers: np.ndarray | None = None, cell: int = 64) -> Any:
    return overlap._highest(saliency.astype(np.float32), numbers, cell)


def test_marks_are_apart_and_descend() -> None:
    """Cells of 64 pixels: two cells are 128 pixels, so a mark removes what is up to two cells away."""
    saliency = np.zeros((10, 10))
    saliency[4, 4], saliency[4, 6], saliency[4, 7], saliency[6, 6], saliency[0, 0] = 0.9, 0.8, 0.7, 0.6, 0.25
    scores, hits = marks_in(saliency)
    assert scores == [0.9, 0.7, 0.6, 0.25]  # 0.8 is 2 cells from 0.9; 0.6 is sqrt(8) from 0.9 and sqrt(5) from 0.7
    assert hits == [None] * 4


def test_a_mark_hits_the_lesion_at_the_centre_of_its_cell() -> None:
    numbers = np.zeros((640, 640), np.int32)
    numbers[4 * 64 + 32, 4 * 64 + 32] = 2
    numbers[0:31, 0:31] = 1  # touches the cell, not its centre
    saliency = np.zeros((10, 10))
    saliency[4, 4], saliency[0, 0] = 0.5, 0.4
    assert marks_in(saliency, numbers) == ([0.5, 0.4], [1, None])


def test_marks_end_where_the_map_is_0() -> None:
    assert marks_in(np.zeros((10, 10))) == ([], [])
    assert len(marks_in(np.ones((46, 30)))[0]) == overlap.MOST_MARKS


def marks(lesions: int, *found: tuple[float, int | None]) -> Marks:
    scores, hits = zip(*found, strict=True) if found else ((), ())
    return Marks(label="malignant", lesions=lesions, scores=scores, hits=hits)


def test_froc_by_hand() -> None:
    """Three images, three lesions. At 0.9: one lesion. At 0.8: one false positive (1/3 an image). At 0.7: the first
    lesion again, which counts once. At 0.5: a second lesion. At 0.4 two false positives (1 an image). The third
    lesion is never hit."""
    images = [
        marks(2, (0.9, 0), (0.7, 0), (0.5, 1)),
        marks(1, (0.4, None)),
        marks(0, (0.8, None), (0.4, None)),
    ]
    found = froc("malignant", images)
    assert (found.images, found.lesions) == (3, 3)
    assert found.curve.across == pytest.approx((0, 0, 1 / 3, 1 / 3, 1))
    assert found.curve.up == pytest.approx((0, 1 / 3, 1 / 3, 2 / 3, 2 / 3))
    assert dict(found.at) == pytest.approx(dict(zip(FALSE_POSITIVES, (1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3), strict=True)))

"""Maps, patches and decisions of one image, against areas counted by hand."""

import numpy as np
import pytest

from glam_deploy.agreement.image import flips
from glam_deploy.agreement.maps import MapAgreement, State, compare_maps, compare_patches, map_cells, overlap, tie
from glam_deploy.networks import CAM, GLAM, GMIC


def cells(count: int, start: int = 0) -> np.ndarray:
    mask = np.zeros(400, bool)
    mask[start : start + count] = True
    return mask


@pytest.mark.parametrize(
    ("found", "expected", "said"),
    [
        # 16 input pixels a cell: 64 cells are 1024, almost empty below, and 32 are half of that
        (cells(0), cells(0), (State.EMPTY, None)),
        (cells(63), cells(0), (State.ALMOST_EMPTY, None)),
        (cells(5), cells(9, 50), (State.ALMOST_EMPTY, None)),
        (cells(31), cells(64), (State.LOST, None)),
        (cells(0), cells(300), (State.LOST, None)),
        (cells(64), cells(31), (State.NEW, None)),
        (cells(32), cells(64), (State.JUDGED, 2 * 32 / 96)),
        (cells(64), cells(64), (State.JUDGED, 1.0)),
        (cells(100, 100), cells(100), (State.JUDGED, 0.0)),
        (cells(100, 25), cells(100), (State.JUDGED, 0.75)),
    ],
)
def test_rule_for_almost_empty_maps(found: np.ndarray, expected: np.ndarray, said: tuple[State, float | None]) -> None:
    assert overlap(found, expected, 16) == said


def test_cells_of_the_global_map_count_for_more() -> None:
    assert overlap(cells(3), cells(3), 256)[0] is State.ALMOST_EMPTY
    assert overlap(cells(4), cells(4), 256) == (State.JUDGED, 1.0)


def answer() -> dict[str, np.ndarray]:
    """Two patches; benign: a global square of 0.65 and a square of 0.45 in each patch. Malignant is empty."""
    maps = np.zeros((2, 2, 128, 128), np.float32)
    maps[:, 0, 10:50, 10:50] = 0.45
    whole = np.zeros((2, 184, 120), np.float32)
    whole[0, 100:120, 20:40] = 0.65
    return {
        "saliency_global": whole,
        "saliency_patches": maps,
        "patch_locations": np.array([[0, 0], [1024, 512]]),
        "y_global": np.array([0.6, 0.2], np.float32),
        "y_local": np.array([0.6, 0.6], np.float32),
    }


def by_name(parities: tuple[MapAgreement, ...]) -> dict[tuple[str, str], MapAgreement]:
    return {(p.map, p.label): p for p in parities}


def test_the_same() -> None:
    found = by_name(compare_maps(answer(), answer(), GLAM))
    assert set(found) == {(name, label) for name in ("global", "patch", "fused") for label in ("benign", "malignant")}
    assert found["global", "benign"].dice == (1.0,) * 6 + (None,) * 3
    assert found["patch", "benign"].dice == (1.0,) * 4 + (None,) * 5
    # the fused map is the mean: 0.225 in the patches' squares, 0.325 in the global one
    assert found["fused", "benign"].dice == (1.0,) * 3 + (None,) * 6
    assert all(
        p.states == (State.EMPTY,) * 9 and p.lowest == 1 for (_, label), p in found.items() if label == "malignant"
    )


def test_a_map_that_shrinks() -> None:
    other = answer()
    other["saliency_patches"] = other["saliency_patches"].copy()
    other["saliency_patches"][1, 0, 10:18, 10:50] = 0.15
    found = by_name(compare_maps(other, answer(), GLAM))
    # of 40 x 40 cells 32 x 40 are left, above every threshold but 0.1
    shrunk = 2 * 32 * 40 / (32 * 40 + 40 * 40)
    assert found["patch", "benign"].dice == pytest.approx((1.0, shrunk, shrunk, shrunk, *[None] * 5))
    assert found["patch", "benign"].lowest == pytest.approx(shrunk)
    assert found["global", "benign"].lowest == 1


def test_a_lesion_lost_in_one_patch_of_two() -> None:
    other = answer()
    other["saliency_patches"] = other["saliency_patches"].copy()
    other["saliency_patches"][1] = 0
    found = by_name(compare_maps(other, answer(), GLAM))["patch", "benign"]
    assert found.states[:4] == (State.LOST,) * 4
    assert (found.lost, found.lowest) == (True, 0)


def test_maps_of_moved_patches_are_compared_where_the_references_lie() -> None:
    moved = answer() | {"patch_locations": np.array([[0, 0], [1040, 512]])}
    moved["saliency_patches"] = np.zeros_like(moved["saliency_patches"])
    found = by_name(compare_maps(moved, answer(), GLAM, forced=answer()["saliency_patches"]))
    assert found["patch", "benign"].lowest == 1
    # empty at the new place, and the old one is outlined no more: one square of two
    assert found["fused", "benign"].dice[1] == pytest.approx(2 * 20 * 20 * 16 / (2 * 20 * 20 * 16 + 2 * 40 * 40))


def at(*places: tuple[int, int]) -> dict[str, np.ndarray]:
    """An answer with patches at these places, whose map has two equal lesions and a smaller third one."""
    saliency = np.zeros((2, 184, 120), np.float32)
    saliency[0, 10:20, 10:20] = saliency[1, 100:110, 10:20] = 0.5
    saliency[0, 60:68, 80:88] = 0.5
    return {"saliency_global": saliency, "patch_locations": np.array(places)}


def test_patches() -> None:
    found = compare_patches(at((0, 0), (48, 64), (600, 0)), at((0, 0), (0, 0), (0, 0)), GLAM)
    assert [patch.same for patch in found] == [True, False, False]
    common = (512 - 48) * (512 - 64)
    assert [patch.iou for patch in found] == pytest.approx([1, common / (2 * 512**2 - common), 0])
    assert [patch.moved_px for patch in found] == pytest.approx([0, 80, 600])


def test_a_patch_that_the_reference_rates_as_high() -> None:
    """The windows of both equal lesions are tied, in either order; that of the smaller lesion is not."""
    expected = at((0, 0), (1440, 0))
    for places, tied in [
        (((16, 32), (1440, 0)), [True, False]),
        (((1440, 0), (0, 0)), [True, True]),
        (((960, 1280), (1440, 0)), [False, False]),
        (((0, 0), (960, 1280)), [False, False]),
    ]:
        found = compare_patches(at(*places), expected, GLAM)
        assert [patch.tied for patch in found] == tied
        assert [patch.agrees for patch in found] == [p.same or t for p, t in zip(found, tied, strict=True)]


def test_a_tie_is_a_matter_of_the_last_bits() -> None:
    """One lesion brighter by 1 in 2^18 in a sum of 100 cells is within rounding; by 1 in 2^13 it is not."""
    for brighter, tied in ((2.0**-18, True), (2.0**-13, False)):
        expected = at((0, 0))
        expected["saliency_global"][0, 100:110, 10:20] = expected["saliency_global"][0, 10:20, 10:20]
        expected["saliency_global"][1] = 0
        expected["saliency_global"][0, 10:20, 10:20] *= np.float32(1 + brighter)
        other = expected | {"patch_locations": np.array([[1440, 0]])}
        assert compare_patches(other, expected, GLAM)[0].tied is tied


def test_flips() -> None:
    other = answer() | {"y_global": np.array([0.49, 0.2], np.float32), "y_local": np.array([0, 0], np.float32)}
    assert flips(other, answer(), GLAM, 0.5) == ("y_global benign",)
    assert flips(other, answer(), GLAM, 0.4) == ()
    head = {"y_fusion": np.array([0.1, 0.5], np.float32)}
    assert flips(other | {"y_fusion": np.array([0.1, 0.499], np.float32)}, answer() | head, GLAM, 0.5) == (
        "y_fusion malignant",
    )


def test_a_cell_of_each_map_in_input_pixels() -> None:
    assert map_cells(GLAM) == {"global": 16 * 16, "patch": 4 * 4, "fused": 4 * 4}
    assert map_cells(GMIC) == {"global": 64 * 64}
    assert set(map_cells(CAM)) == {"global"}


def test_a_value_at_a_threshold_is_part_of_the_lesion() -> None:
    """Each threshold is rounded to float32, as the maps are."""
    for n in range(1, 10):
        level = answer()
        level["saliency_global"] = np.where(level["saliency_global"] > 0, np.float32(n / 10), np.float32(0))
        found = by_name(compare_maps(level, level, GLAM))["global", "benign"]
        assert found.dice == (1.0,) * n + (None,) * (9 - n)


def test_maps_of_a_network_without_patches() -> None:
    """And those of GMIC, whose patches have no maps."""
    for network in (CAM, GMIC):
        maps = {"saliency_global": np.zeros((2, *network.map_shape), np.float32)}
        maps["saliency_global"][1, :5, :5] = 0.35
        found = by_name(compare_maps(maps, maps, network))
        assert set(found) == {("global", "benign"), ("global", "malignant")}
        assert found["global", "malignant"].dice == (1.0,) * 3 + (None,) * 6
    assert compare_patches({}, {}, CAM) == ()


def test_another_number_of_patches_is_an_error() -> None:
    """Else the last one would be compared with nothing."""
    with pytest.raises(ValueError, match="zip"):
        compare_maps(answer(), answer(), GLAM, forced=answer()["saliency_patches"][:1])
    with pytest.raises(ValueError, match="zip"):
        compare_patches(at((0, 0)), at((0, 0), (0, 0)), GLAM)


def test_a_tie_is_twice_the_roundings_of_a_window() -> None:
    assert tie(GLAM) == 2 * 62 * 2.0**-24
    assert tie(GMIC) == 2 * 6 * 2.0**-24


def test_boxes_that_only_touch_have_nothing_in_common() -> None:
    found = compare_patches(at((0, 0), (0, 0), (0, 0)), at((512, 0), (0, 512), (511, 511)), GLAM)
    assert [patch.iou for patch in found] == [0, 0, pytest.approx(1 / (2 * 512**2 - 1))]


def test_all_places_of_a_map_without_contrast_are_tied() -> None:
    expected = at((0, 0), (0, 0))
    expected["saliency_global"][:] = 0.5
    found = compare_patches(expected | {"patch_locations": np.array([[0, 0], [1440, 512]])}, expected, GLAM)
    assert [(patch.same, patch.tied) for patch in found] == [(True, False), (False, True)]


def test_a_place_that_was_taken_is_not_tied_again() -> None:
    expected = at((960, 1280), (0, 0))
    expected["saliency_global"][:] = 0
    expected["saliency_global"][0, 60:70, 80:90] = expected["saliency_global"][0, 10:18, 10:18] = 0.5
    found = compare_patches(expected | {"patch_locations": np.array([[960, 1280], [960, 1280]])}, expected, GLAM)
    assert [(patch.same, patch.tied) for patch in found] == [(True, False), (False, False)]

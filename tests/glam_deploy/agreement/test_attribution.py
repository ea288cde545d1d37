"""Differences of one answer from the reference's, and the part of the candidate that they belong to."""

from typing import Any

import numpy as np
import pytest

from glam_deploy.agreement.answers import Answer, differences
from glam_deploy.agreement.image import compare_answers, on_reference_patches
from glam_deploy.agreement.limits import Limits
from glam_deploy.networks import GLAM


def answer() -> dict[str, np.ndarray]:
    """One patch at (512, 256) with a benign square of 40 x 40 cells in it; the malignant maps are empty."""
    saliency_patches = np.zeros((1, 2, 128, 128), np.float32)
    saliency_patches[0, 0, 10:50, 10:50] = 0.8
    saliency_global = np.zeros((2, 184, 120), np.float32)
    saliency_global[0, 30:60, 10:40] = 0.5
    return {
        "patch_locations": np.array([[512, 256]]),
        "saliency_global": saliency_global,
        "saliency_patches": saliency_patches,
        "y_global": np.array([0.5, 0.25], np.float32),
    }


def test_the_same() -> None:
    found = differences(answer(), answer(), GLAM)
    assert (found.same_patches, found.moved_pixels) == (True, 0)
    assert found.dice == {"benign": 1.0, "malignant": None}
    assert found.lesion_cells == {"benign": 40 * 40, "malignant": 0}
    assert found.largest_difference == {"saliency_global": 0, "saliency_patches": 0, "y_global": 0}


def test_a_patch_that_lies_elsewhere() -> None:
    moved = answer() | {"patch_locations": np.array([[512, 256 + 16]])}
    found = differences(moved, answer(), GLAM)
    assert (found.same_patches, found.moved_pixels) == (False, 16)
    assert found.dice["benign"] == pytest.approx(2 * 40 * 36 / (2 * 40 * 40))


def test_a_local_map_that_differs() -> None:
    other = answer()
    other["saliency_patches"][0, 0, 10:14, 10:50] = 0.25
    found = differences(other, answer(), GLAM)
    assert found.same_patches
    assert found.dice["benign"] == pytest.approx(2 * 36 * 40 / (36 * 40 + 40 * 40))
    assert found.largest_difference["saliency_patches"] == pytest.approx(0.55)


class Local:
    """A local stage with the same maps for every patch."""

    network = GLAM

    def __init__(self, maps: np.ndarray) -> None:
        self.maps, self.given = maps, np.empty(0)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.given = inputs["patches"]
        return {"saliency_patches": self.maps}


WORSE = answer()["saliency_patches"] * np.linspace(0.2, 1, 128, dtype=np.float32)
IMAGE = np.arange(2944 * 1920, dtype=np.float32).reshape(2944, 1920)


def reasons(engine: Any, found: Answer, expected: Answer) -> list[str]:
    forced = on_reference_patches(engine, IMAGE, found, expected)
    return list(compare_answers(found, expected, GLAM, Limits(), forced=forced).reasons)


def attributed(local: np.ndarray, **found: np.ndarray) -> list[str]:
    engine: Any = Local(local)
    named = reasons(engine, answer() | found, answer())
    if "patch_locations" in found:
        assert engine.given.shape == (1, 1, 512, 512)
        assert engine.given[0, 0, 0, 0] == IMAGE[512, 256]  # the reference's patch, wherever the engine's lies
    else:
        assert engine.given.size == 0  # what is known already is not computed again
    return named


def test_reasons() -> None:
    same = answer()["saliency_patches"]
    dark = np.zeros((2, 184, 120), np.float32)
    elsewhere = np.array([[0, 0]])
    assert attributed(WORSE, saliency_patches=WORSE) == ["local differs"]
    assert attributed(same, saliency_global=dark) == ["global differs"]
    assert attributed(same, patch_locations=elsewhere, saliency_patches=WORSE) == ["patch moved"]
    assert attributed(WORSE, patch_locations=elsewhere, saliency_global=dark) == [
        "patch moved",
        "global differs",
        "local differs",
    ]


def test_only_patches_that_moved_are_computed_again() -> None:
    two = answer()
    two["saliency_patches"] = np.concatenate([two["saliency_patches"], WORSE])
    two["patch_locations"] = np.array([[512, 256], [1024, 0]])
    found = two | {"patch_locations": np.array([[512, 256], [1024, 16]])}
    engine: Any = Local(WORSE / 2)
    forced = on_reference_patches(engine, IMAGE, found, two)
    np.testing.assert_array_equal(forced, np.concatenate([two["saliency_patches"][:1], WORSE / 2]))
    assert engine.given[0, 0, 0, 0] == IMAGE[1024, 0]
    np.testing.assert_array_equal(found["saliency_patches"][1], WORSE[0])


def test_parts_that_differ_only_together() -> None:
    """A mean of 0.52 of which each part alone takes 0.015, and both together 0.03; no part crosses a threshold."""
    expected = answer()
    expected["saliency_global"] = expected["saliency_global"] / 2
    expected["saliency_patches"] = expected["saliency_patches"] - np.float32(0.01) * (answer()["saliency_patches"] > 0)
    part = {name: expected[name] - np.float32(0.03) for name in ("saliency_global", "saliency_patches")}
    engine: Any = Local(part["saliency_patches"])
    assert reasons(engine, expected | part, expected) == ["fusion differs"]

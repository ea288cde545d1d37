"""One case against the reference: what is told of it, and of all of them together."""

from pathlib import Path

import numpy as np
import pytest

from glam_bench.gpu_check import reference
from glam_bench.gpu_check.parity import compared, summary
from glam_deploy.records import View


def answer() -> dict[str, np.ndarray]:
    """One patch at (512, 256) with a benign square of 40 x 40 cells in it; the malignant maps are empty."""
    saliency_patches = np.zeros((1, 2, 128, 128), np.float32)
    saliency_patches[0, 0, 10:50, 10:50] = 1
    saliency_global = np.zeros((2, 184, 120), np.float32)
    saliency_global[0, 30:60, 10:40] = 0.5
    return {
        "patch_locations": np.array([[512, 256]]),
        "saliency_global": saliency_global,
        "saliency_patches": saliency_patches,
        "y_global": np.array([0.5, 0.25], np.float32),
    }


def test_the_same() -> None:
    found = compared(answer(), answer())
    assert (found["same_patches"], found["moved_pixels"]) == (True, 0)
    assert found["dice"] == {"benign": 1.0, "malignant": None}
    assert found["lesion_cells"] == {"benign": 40 * 40, "malignant": 0}
    assert found["largest_difference"] == {"saliency_global": 0, "saliency_patches": 0, "y_global": 0}


def test_a_patch_that_lies_elsewhere() -> None:
    moved = answer() | {"patch_locations": np.array([[512, 256 + 16]])}
    found = compared(moved, answer())
    assert (found["same_patches"], found["moved_pixels"]) == (False, 16)
    assert found["dice"]["benign"] == pytest.approx(2 * 40 * 36 / (2 * 40 * 40))


def test_a_local_map_that_differs() -> None:
    other = answer()
    other["saliency_patches"][0, 0, 10:14, 10:50] = 0.25
    found = compared(other, answer())
    assert found["same_patches"]
    assert found["dice"]["benign"] == pytest.approx(2 * 36 * 40 / (36 * 40 + 40 * 40))
    assert found["largest_difference"]["saliency_patches"] == 0.75


def test_all_together() -> None:
    moved = answer() | {"patch_locations": np.array([[0, 0]])}
    cases = [{"case": name, **compared(found, answer())} for name, found in (("a", answer()), ("b", moved))]
    found = summary(cases)
    assert found["same_patches"] == 1
    assert found["worst_dice"] == {"benign": 0.0, "malignant": None}
    assert [case["case"] for case in found["cases"]] == ["a", "b"]


def test_a_case_goes_to_a_file_and_back(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    np.savez(tmp_path / "x.npz", case_name="phantom", case_view="R-MLO", case_pixels=pixels, **answer())
    view, arrays = reference.read(tmp_path / "x.npz")
    assert (view.source.name, view.view) == ("phantom", View.R_MLO)
    np.testing.assert_array_equal(view.pixels, pixels)
    assert arrays.keys() == answer().keys()

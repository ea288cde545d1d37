"""The cases of an engine together, and their way through a file."""

from pathlib import Path

import numpy as np

from glam_bench.gpu_check import reference
from glam_bench.gpu_check.parity import summary
from glam_deploy.records import View


def case(name: str, benign: float | None, difference: float, *, same: bool = True) -> dict[str, object]:
    dice = {"benign": benign, "malignant": None}
    return {"case": name, "same_patches": same, "dice": dice, "largest_difference": {"y_global": difference}}


def test_all_together() -> None:
    cases = [case("a", 0.999, 0.01), case("b", 0.5, 0.25, same=False), case("c", None, 0.0)]
    found = summary(cases)
    assert found.pop("cases") == cases
    assert found == {
        "same_patches": 2,
        "worst_dice": {"benign": 0.5, "malignant": None},
        "largest_difference": {"y_global": 0.25},
    }


def test_nan_is_the_largest_difference() -> None:
    found = summary([case("a", None, 0.01), case("b", None, float("nan")), case("c", None, 0.02)])
    assert np.isnan(found["largest_difference"]["y_global"])


def test_a_case_goes_to_a_file_and_back(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    answer = {"patch_locations": np.array([[512, 256]]), "y_global": np.array([0.5, 0.25], np.float32)}
    np.savez(tmp_path / "x.npz", case_name="phantom", case_view="R-MLO", case_pixels=pixels, **answer)
    view, arrays = reference.read(tmp_path / "x.npz")
    assert (view.source.name, view.view) == ("phantom", View.R_MLO)
    np.testing.assert_array_equal(view.pixels, pixels)
    assert arrays.keys() == answer.keys()

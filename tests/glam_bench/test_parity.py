"""The cases of an engine together, and their way through a file."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from glam_bench.measurements import reference
from glam_bench.parity import Case, summary
from glam_deploy.agreement.answers import Differences
from glam_deploy.agreement.image import ImageAgreement
from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.maps import MapAgreement, PatchAgreement, State, map_cells
from glam_deploy.networks import GLAM
from glam_deploy.records import View


def case(name: str, benign: float | None, difference: float, *, same: bool = True) -> Case:
    off = Differences(
        same_patches=same,
        moved_pixels=0,
        dice={"benign": benign, "malignant": None},
        lesion_cells={},
        largest_difference={"y_global": difference},
    )
    maps = tuple(
        MapAgreement(map=name, label=label, dice=(1.0,) * 9, states=(State.JUDGED,) * 9)
        for name in map_cells(GLAM)
        for label in GLAM.classes
    )
    patch = PatchAgreement(same=same, tied=False, iou=1.0, moved_px=0.0)
    agreement = ImageAgreement(maps=maps, patches=(patch,), scores={}, flips=(), reasons=())
    return Case(name=name, differences=off, agreement=agreement)


def test_all_together() -> None:
    cases = [case("a", 0.999, 0.01), case("b", 0.5, 0.25, same=False), case("c", None, 0.0)]
    found = summary(cases)
    assert [row["case"] for row in found["cases"]] == ["a", "b", "c"]
    assert found.pop("cases") == [case.to_json() for case in cases]
    assert found.pop("verdict") == {
        "passed": False,
        "failures": ["patches where the reference could have chosen them: 66.7%, limit 99.0%"],
        "limits": asdict(Limits()),
    }
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

"""Specs against the published facts, and what follows from them."""

import copy
import pickle

import numpy as np
import pytest

from glam_deploy import networks
from glam_deploy.errors import UsageError
from glam_deploy.gpu.kernels.geometry import geometry_of
from glam_deploy.networks import CAM, GLAM, GLAM_CONCATENATION, GMIC, NETWORKS, NetworkSpec


def test_glam_is_the_published_network() -> None:
    assert (GLAM.input_shape, GLAM.map_shape, GLAM.cell) == ((2944, 1920), (184, 120), 16)
    assert (GLAM.patches.side, GLAM.patches.window, GLAM.patches.slots, GLAM.patches.map_side) == (512, 32, 6, 128)
    assert (GLAM.grid_cell, GLAM.grid_shape) == (4, (736, 480))
    assert GLAM.classes == ("benign", "malignant")
    assert GLAM.stages == ("global", "local", "fusion")


def test_the_two_kinds_of_glam_differ_in_the_fusion_stage_alone() -> None:
    assert [GLAM.contract(s) == GLAM_CONCATENATION.contract(s) for s in GLAM.stages] == [True, True, False]
    assert GLAM.contract("fusion").outputs.keys() - GLAM_CONCATENATION.contract("fusion").outputs.keys() == {
        "y_fusion",
        "attention",
    }
    assert (GLAM.scores, GLAM_CONCATENATION.scores) == (("y_global", "y_local", "y_fusion"), ("y_global", "y_local"))


def test_an_engine_may_leave_the_fused_map_to_others_and_nothing_else() -> None:
    for stage in GLAM.stages:
        whole, left = GLAM.contract(stage).outputs, GLAM.contract(stage, composed=False).outputs
        assert whole.keys() - left.keys() == ({"saliency"} if stage == "fusion" else set())


@pytest.mark.parametrize("spec", NETWORKS, ids=lambda spec: f"{spec.name} {spec.aggregation}")
def test_a_spec_stays_one_object_through_pickle_and_copy(spec: NetworkSpec) -> None:
    assert pickle.loads(pickle.dumps(spec)) is spec
    assert copy.deepcopy(spec) is spec
    assert networks.network(spec.name, spec.aggregation) is spec


@pytest.mark.parametrize(("name", "aggregation"), [("CAM", "attention"), ("GLAM", "mean"), ("glam", "attention")])
def test_another_network_is_never_taken_for_one_of_these(name: str, aggregation: str) -> None:
    with pytest.raises(LookupError, match=f"'{name}' with '{aggregation}' aggregation is unknown.*GLAM with attention"):
        networks.network(name, aggregation)


def test_gmic_fits_the_same_record() -> None:
    """43 x 27 places of a 4 x 4 window; a cell of 64 pixels; the largest place is (2688, 1664)."""
    assert (GMIC.cell, GMIC.grid_cell, GMIC.grid_shape) == (64, 64, (46, 30))
    places = [cells - GMIC.patches.window for cells in GMIC.map_shape]
    assert [GMIC.cell * place for place in places] == [2688, 1664]
    geometry = geometry_of(GMIC)
    assert (geometry.row_threads, geometry.crop_threads, geometry.propose_blocks) == (480, 64, 5)


def test_cam_has_one_stage_and_a_cell_of_its_total_stride() -> None:
    assert (CAM.stages, CAM.cell, CAM.grid_shape, CAM.scores) == (("global",), 32, (92, 60), ("y_global",))
    with pytest.raises(LookupError, match="CAM has no patches"):
        _ = CAM.patches


def test_the_number_of_patches_is_that_asked_for_or_the_default() -> None:
    assert [spec.patch_count(None) for spec in (GLAM, GMIC, CAM)] == [1, 6, 0]
    assert (GLAM.patch_count(6), CAM.patch_count(0)) == (6, 0)
    for wrong in (0, 7):
        with pytest.raises(UsageError, match=f"patches = {wrong}: expected a whole number from 1 to 6"):
            GLAM.patch_count(wrong)
    for kind in ("1", 1.0, True, np.float32(1)):
        with pytest.raises(UsageError, match=r"patches = .*: expected a whole number from 1 to 6"):
            GLAM.patch_count(kind)  # type: ignore[arg-type]
    assert type(GLAM.patch_count(np.int64(3))) is int  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="patches = 1: CAM has no patches"):
        CAM.patch_count(1)

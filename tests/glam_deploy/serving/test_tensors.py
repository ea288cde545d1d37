"""Declared outputs against the arrays that `run` writes, for every network."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.engines import opened_fakes, small_view

from glam_deploy.networks import NETWORKS, NetworkSpec
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.serving.tensors import BOXES, REPORT, outputs, outputs_of

PATCHES = 3


@pytest.mark.parametrize("network", NETWORKS, ids=lambda one: f"{one.name}-{one.aggregation}")
def test_declared_outputs_are_those_of_the_npz(network: NetworkSpec, tmp_path: Path) -> None:
    patches = PATCHES if network.selection else 0
    result = Pipeline(opened_fakes(network=network), patches=patches or None, provenance={"gate": "reference"})(
        small_view()
    )
    result.save(tmp_path, stem="view", picture=False)
    with np.load(tmp_path / "view.npz") as file:
        saved = {name: file[name] for name in file.files if file[name].size}
    made, declared = outputs(result), outputs_of(network, patches)
    assert made.keys() == declared.keys()
    assert made.keys() - {BOXES, REPORT} == saved.keys()
    for name, array in saved.items():
        assert (made[name].dtype, made[name].shape) == (array.dtype, (1, *array.shape))
        assert made[name].tobytes() == array.tobytes()
    for name, tensor in declared.items():
        assert made[name].dtype == tensor.dtype
        assert tensor.shape in (made[name].shape[1:], (-1,))


def test_report_is_that_of_run_without_files(tmp_path: Path) -> None:
    result = Pipeline(opened_fakes(), patches=2, provenance={"gate": "reference"})(small_view())
    result.save(tmp_path, stem="view", picture=False)
    made = outputs(result)
    saved = json.loads((tmp_path / "view.json").read_bytes())
    assert json.loads(bytes(made[REPORT][0])) == saved | {"files": {"arrays": None, "picture": None}}
    boxes = [list(box or (-1,) * 4) for box in result.patch_boxes_in_source]
    assert made[BOXES][0].tolist() == boxes

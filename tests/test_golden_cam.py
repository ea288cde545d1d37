"""CAM from checkpoint to results on several engines, against its formula in float64 (`golden.cam`)."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from expected import need_engine
from filelock import FileLock
from golden import cam

from glam_deploy import load
from glam_deploy.agreement.golden import check_golden
from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.verdict import judge
from glam_deploy.bundle import open_bundle
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.registry import check_engine
from glam_deploy.errors import BundleError, UsageError
from glam_deploy.gate.pictures import picture
from glam_deploy.gate.trial import examine, open_pair
from glam_deploy.networks import CAM
from glam_deploy.preprocess import from_standardized
from glam_deploy.records import NetworkInput, Source
from glam_deploy.runtime.result import Result
from glam_export.exporter import ExportOptions, export_bundle

TOLERANCE = 1e-4

pytestmark = [pytest.mark.network, pytest.mark.slow]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cam") / "golden.pt"
    torch.save({"state_dict": {f"module.{key}": value for key, value in cam.state_dict(cam.SMALL).items()}}, path)
    return path


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = tmp_path_factory.mktemp("golden")
    root = own.parents[1] if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = root / "golden_cam"
    with FileLock(root / "golden_cam.lock"):
        if not folder.exists():
            export_bundle(checkpoint, folder, ExportOptions(precisions=("fp32",)))
    return folder


@pytest.fixture(scope="module")
def image(golden_image: Callable[[int], np.ndarray]) -> NetworkInput:
    return from_standardized(golden_image(cam.SEED), source=Source(name="case", kind="array"))


@pytest.fixture(scope="module", params=["onnx", "torch", "openvino"])
def result(request: pytest.FixtureRequest, bundle: Path, image: NetworkInput) -> Result:
    need_engine(request.param)
    with load(bundle, engine=request.param, ungated=True) as pipeline:
        assert (pipeline.patches, pipeline.network) == (0, CAM)
        return pipeline(image)


def test_score_and_map_are_those_of_the_formula(result: Result) -> None:
    with np.load(cam.HERE / "case_1.npz") as case:
        np.testing.assert_allclose(result.y_global, case["y_global"], rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(result.saliency_global, case["saliency"], rtol=0, atol=TOLERANCE)


def test_files_of_a_run_have_what_the_network_has(result: Result, tmp_path: Path) -> None:
    np.testing.assert_array_equal(result.saliency()[:, ::32, ::32], result.saliency_global)
    found = {path.suffix: path for path in result.save(tmp_path, stem="a")}
    with np.load(found[".npz"]) as written:
        shapes = {name: written[name].shape for name in written}
    assert shapes == {"y_global": (2,), "saliency_global": (2, 92, 60), "patch_locations": (0, 2)}
    report = json.loads(found[".json"].read_text())
    assert (list(report["predictions"]), report["patches"]) == (["y_global"], [])


def test_patches_are_refused(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="patches = 2: CAM has no patches"):
        load(bundle, patches=2)
    for options, message in (
        (ExportOptions(patches=1), "patches = 1: CAM has no patches"),
        (ExportOptions(winograd=True), "--winograd rewrites the local graph, which CAM does not have"),
    ):
        with pytest.raises(UsageError, match=message):
            export_bundle(checkpoint, tmp_path / "bundle", options)
    assert not (tmp_path / "bundle").exists()


def test_winograd_engines_are_refused_by_name(bundle: Path) -> None:
    with pytest.raises(BundleError, match="its network, CAM, has no local stage"):
        check_engine("onnx-winograd", open_bundle(bundle), EngineOptions())


def test_the_gate_compares_the_map_alone(bundle: Path, image: NetworkInput) -> None:
    need_engine("openvino")
    opened = open_bundle(bundle)
    pair = open_pair(opened, "openvino", reference="onnx", patches=opened.patches, options=EngineOptions())
    examined = examine(pair, image, None, Limits())
    agreement = examined.trial.agreement
    assert [(one.map, one.label) for one in agreement.maps] == [("global", "benign"), ("global", "malignant")]
    assert (agreement.patches, agreement.reasons, agreement.lowest) == ((), (), 1.0)
    verdict = judge([agreement], Limits())
    assert verdict.passed
    assert verdict.metrics is not None
    assert verdict.metrics.patches is None
    assert picture(examined).shape == (856, 1968, 3)


def test_the_golden_case_has_no_row_for_patches(bundle: Path) -> None:
    opened = open_bundle(bundle)
    with load(bundle) as pipeline:
        rows = check_golden(opened, pipeline)
    assert [(row.name, row.passed) for row in rows] == [("y_global", True), ("saliency_global", True)]

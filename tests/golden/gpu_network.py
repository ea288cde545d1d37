"""The full-size network on the fake GPU, against published outputs. Run by tests/test_golden_on_fake_gpu.py."""

import os
from pathlib import Path

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from golden.recipe import mammogram
from support.chains import on_gpu, on_host

from glam_deploy.agreement.golden import check_golden, golden_patches
from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.fusion_head import read_fusion_weights
from glam_deploy.engines.registry import open_engines
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.networks import GLAM
from glam_deploy.preprocess import from_standardized
from glam_deploy.records import Source
from glam_deploy.runtime.pipeline import Pipeline

TOLERANCE = 1e-4
HERE = Path(__file__).parent
CASES = {
    "GLAM": (
        (HERE / "case_k1.npz",),
        {
            "y_global": "y_global",
            "y_local": "y_local_concat",
            "saliency_global": "saliency_global",
            "saliency_patches": "saliency_local",
        },
    ),
    "GMIC": (
        (HERE / "gmic/case_1.npz", HERE / "gmic/case_2.npz"),
        {
            **{name: name for name in ("y_global", "y_local", "y_fusion", "attention")},
            "saliency_global": "saliency",
        },
    ),
}
"""Network -> published cases with the bundle's number of patches, and name in a result -> name in a case."""


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(Path(os.environ["GLAM_TEST_BUNDLE"]))


@pytest.fixture
def pipeline(bundle: Bundle, gpu: Gpu, driver: FakeDriver) -> Pipeline:
    """Both networks in ONNX Runtime, everything else in the kernels, the fusion head too."""
    engines, weights = open_engines("onnx", bundle, EngineOptions()).engines, read_fusion_weights(bundle)
    assert weights is not None
    return on_gpu(engines, golden_patches(bundle), gpu=gpu, driver=driver, weights=weights)


@pytest.fixture(scope="module")
def is_published(bundle: Bundle) -> bool:
    """Whether there are golden cases of the network; there are none of GLAM with attention and a fusion layer."""
    return bundle.network is not GLAM


def test_attention_and_fusion_layer(bundle: Bundle, is_published: bool, gpu: Gpu, driver: FakeDriver) -> None:
    """The kernels against the fusion graph, on the published input of three patches."""
    if is_published:
        pytest.skip("the published cases of this network have all of its scores")
    golden = np.load(HERE / "case_k3_batch2.npz")
    engines = open_engines("onnx", bundle, EngineOptions()).engines
    device = on_gpu(engines, 3, gpu=gpu, driver=driver, weights=read_fusion_weights(bundle))
    view = from_standardized(mammogram(int(golden["seeds"][0])), source=Source(name="golden", kind="array"))
    found, expected = device(view), on_host(engines, 3)(view)
    np.testing.assert_array_equal(found.patch_locations, golden["patch_locations"][0])
    np.testing.assert_allclose(found.y_global, golden["y_global"][0], rtol=0, atol=TOLERANCE)
    assert np.ptp(found.attention) > 1e-3
    for name in ("y_global", "y_local", "y_fusion", "attention"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=2e-6, err_msg=name)


def test_raw_view_of_the_bundle(bundle: Bundle, is_published: bool, pipeline: Pipeline) -> None:
    """What the PyTorch reference made of it at export."""
    if not is_published:
        pytest.skip("the bundle has no golden case")
    rows = check_golden(bundle, pipeline)
    assert "patch_locations" in [row.name for row in rows]
    assert [row.name for row in rows if not row.passed] == []


def test_published_cases(is_published: bool, pipeline: Pipeline) -> None:
    if not is_published:
        pytest.skip("there is no published case of this network")
    files, names = CASES[pipeline.network.name]
    for file in files:
        golden = np.load(file)
        seed = int(golden["seed"] if "seed" in golden else golden["seeds"][0])
        result = pipeline(from_standardized(mammogram(seed), source=Source(name="golden", kind="array")))
        assert len(golden["patch_locations"][0]) == pipeline.patches
        np.testing.assert_array_equal(result.patch_locations, golden["patch_locations"][0])
        for name, key in names.items():
            np.testing.assert_allclose(getattr(result, name), golden[key][0], rtol=0, atol=TOLERANCE, err_msg=name)

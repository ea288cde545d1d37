"""The pipeline over TensorRT engines, of made-up libraries of both kinds. Run by test_on_fake_gpu.py.

Their arithmetic lets rounding decide on patches, so results are held against themselves and against numpy.
"""

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from support.chains import kernels, raw_view
from support.engines import blocks, fake_identity, squash
from support.tensorrt_runtime import KINDS, library, plan

from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.base import GpuEngines
from glam_deploy.gpu.engines.tensorrt.engine import TensorRtEngine
from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.networks import GLAM, STAGES
from glam_deploy.preprocess import prepare
from glam_deploy.records import Mammogram, NetworkInput
from glam_deploy.runtime import patching
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result

PATCHES = 3
ENQUEUED = 2
"""How often a slot puts an engine into its stream for one kind of input: once at first, once recorded."""


@pytest.fixture(params=KINDS)
def trt(request: pytest.FixtureRequest, gpu: Gpu, driver: FakeDriver) -> Library:
    return library(request.param, gpu, driver)


@pytest.fixture
def pipeline(trt: Library, gpu: Gpu) -> Pipeline:
    engines = {stage: TensorRtEngine(trt, plan(stage, network=GLAM), stage, network=GLAM, gpu=gpu) for stage in STAGES}
    opened = GpuEngines(engines=engines, identity=fake_identity("fp16"), gpu=gpu, kernels=kernels(gpu))
    return Pipeline(opened, patches=PATCHES, provenance={}, slots=1)


def assert_right(result: Result, image: np.ndarray) -> None:
    """`image`: the standardized input."""
    cells = squash(blocks(image[None, None], GLAM.cell))[0]
    np.testing.assert_allclose(result.saliency_global, [cells, 1 - cells], rtol=0, atol=1e-6)
    windows, _ = patching.choose_windows(result.saliency_global, PATCHES, GLAM.patches)
    assert result.patch_locations.tolist() == [[row * GLAM.cell, column * GLAM.cell] for row, column in windows]
    patches = patching.crop(image, result.patch_locations, GLAM.patches.side)
    local = squash(blocks(patches, GLAM.grid_cell))
    np.testing.assert_allclose(result.saliency_patches, np.stack([local, 1 - local], 1), rtol=0, atol=2e-6)
    np.testing.assert_allclose(result.y_local, result.saliency_patches.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(result.attention, [1 / PATCHES] * PATCHES, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 4])
def test_views_one_by_one_and_four_at_once(trt: Library, pipeline: Pipeline, count: int) -> None:
    views: list[Mammogram] = [raw_view(seed) for seed in range(2)]
    inputs: list[NetworkInput] = [prepare(view) for view in views]
    for _ in range(3 if count == 1 else 2):
        for result, prepared in zip(pipeline.batch((inputs * 2)[:count]), inputs * 2, strict=False):
            assert_right(result, prepared.image)
    assert [context.runs for context in trt.trt.contexts] == [ENQUEUED] * 3
    assert_right(pipeline(views[1]), inputs[1].image)

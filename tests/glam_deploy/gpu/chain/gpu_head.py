"""The fusion head's kernels in the chain, where otherwise an engine computes the scores. Run by test_on_fake_gpu.py."""

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from support.chains import assert_same, on_gpu, on_host, raw_view, stage_engines
from support.device import HostFunctionEngine

from glam_deploy.engines.base import Engine
from glam_deploy.engines.fusion_head import FusionHead, Weights
from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, NetworkSpec, Stage
from glam_deploy.preprocess import prepare
from glam_deploy.records import NetworkInput
from glam_deploy.runtime.pipeline import Pipeline

STEPS = {GLAM: ["pool", "attend"], GLAM_CONCATENATION: ["pool"]}


@pytest.fixture(scope="module")
def views() -> list[NetworkInput]:
    return [prepare(raw_view(seed)) for seed in (0, 1)]


def weights_of(network: NetworkSpec) -> Weights:
    rng = np.random.default_rng(1)
    return {key: rng.normal(0, 0.1, shape).astype(np.float32) for key, shape in network.fusion_weights.items()}


def pair(
    network: NetworkSpec, patches: int, gpu: Gpu, driver: FakeDriver, wrong: dict[str, float] | None = None
) -> tuple[Pipeline, Pipeline]:
    """On the host with the head in numpy, on the GPU with its kernels; a GPU engine for fusion fails if it is used."""
    weights, engines = weights_of(network), stage_engines(network=network, wrong=wrong)
    host: dict[Stage, Engine] = {**engines, "fusion": FusionHead(weights, network)}
    device = on_gpu(engines, patches, gpu=gpu, driver=driver, weights=weights, kind=NoFusion)
    return on_host(host, patches), device


class NoFusion(HostFunctionEngine):
    """The fusion stage of these is neither bound nor asked for its scratch memory."""

    def scratch_bytes(self, batch: int) -> int:
        assert self.stage != "fusion"
        return super().scratch_bytes(batch)


@pytest.mark.parametrize("network", STEPS, ids=lambda network: network.aggregation)
@pytest.mark.parametrize("patches", [1, 3, 6])
def test_single_views(
    gpu: Gpu, driver: FakeDriver, views: list[NetworkInput], network: NetworkSpec, patches: int
) -> None:
    host, device = pair(network, patches, gpu, driver)
    for view in views:
        found = device(view)
        assert_same(found, host(view))
        assert found.provenance["cuda_graph"] == {"state": "recorded", "reason": None}


@pytest.mark.parametrize("network", STEPS, ids=lambda network: network.aggregation)
def test_four_views_at_once(gpu: Gpu, driver: FakeDriver, views: list[NetworkInput], network: NetworkSpec) -> None:
    host, device = pair(network, 2, gpu, driver)
    exam = views * 2
    for found, view in zip(device.batch(exam), exam, strict=True):
        assert_same(found, host(view))


@pytest.mark.parametrize("network", STEPS, ids=lambda network: network.aggregation)
def test_the_launches(gpu: Gpu, driver: FakeDriver, views: list[NetworkInput], network: NetworkSpec) -> None:
    _, device = pair(network, 1, gpu, driver)
    device(views[0])
    with driver.recorded() as lines:
        device(views[1])
    work = [line.removeprefix("> ") for line in lines if line.startswith("> ")]
    assert work[work.index("crop") + 2 : work.index("fuse")] == STEPS[network]  # one line is the local engine's


@pytest.mark.parametrize(
    ("output", "words"),
    [("y_scale", "global engine: 6 of 6 values of 'y_scale'"), ("z_g", "fusion engine: .* of 'y_local'"),
     ("z_k", "fusion engine: .* of 'y_local'"), ("saliency_patches", "local engine: .* of 'saliency_patches'")],
)  # fmt: skip
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(
    gpu: Gpu, driver: FakeDriver, views: list[NetworkInput], output: str, words: str, value: float
) -> None:
    _, device = pair(GLAM, 2, gpu, driver, wrong={output: value})
    with pytest.raises(BackendRunError, match=f"{words} are NaN or infinite"):
        device(views[0])

"""Networks without patch maps (GMIC) or without patches (CAM) on the GPU. Run by test_on_fake_gpu.py, once for each."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from support.chains import Eager, assert_same, kernels, raw_view
from support.engines import fake_engines, fake_identity
from support.tensorrt_runtime import KINDS, library, plan

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.arrays import DeviceArray
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.base import GpuEngines
from glam_deploy.gpu.engines.tensorrt.engine import TensorRtEngine
from glam_deploy.networks import NETWORKS
from glam_deploy.preprocess import prepare
from glam_deploy.records import Mammogram, NetworkInput, Patches
from glam_deploy.runtime import host_chain, patching
from glam_deploy.runtime.pipeline import Pipeline

(NETWORK,) = (network for network in NETWORKS if network.name == os.environ["GLAM_TEST_NETWORK"])
COUNTS = (1, 2, NETWORK.patches.slots) if NETWORK.selection else (0,)
SOME = COUNTS[len(COUNTS) // 2]
ABSENT = {
    "GMIC": {"y_scale", "saliency_patches"},
    "CAM": {"y_scale", "y_local", "y_fusion", "attention", "saliency_patches", "patch_locations"},
}

Pair = Callable[..., tuple[Pipeline, Pipeline]]


@pytest.fixture(scope="module")
def views() -> list[Mammogram]:
    """Two of one kind, then one of another; mirrored and not, cut off and padded."""
    small = raw_view(0, shape=(1100, 800))
    return [raw_view(1, shape=(3300, 2400), flip=True), small, raw_view(2, shape=(1100, 800), dtype="float32")]


@pytest.fixture(scope="module")
def standardized() -> list[NetworkInput]:
    return [prepare(raw_view(seed)) for seed in (3, 4)]


@pytest.mark.parametrize("patches", COUNTS)
def test_raw_views(pair: Pair, views: list[Mammogram], patches: int) -> None:
    host, device = pair(patches, network=NETWORK)
    for view in views:
        found = device(view)
        assert_same(found, host(view))
        assert found.provenance["cuda_graph"] == {"state": "recorded", "reason": None}


@pytest.mark.parametrize("patches", COUNTS)
def test_four_at_once(pair: Pair, standardized: list[NetworkInput], patches: int) -> None:
    """Twice: the second time, the graph that the first has recorded."""
    host, device = pair(patches, network=NETWORK)
    expected = [host(view) for view in standardized]
    for order in ((0, 1, 1, 0), (1, 0, 0, 1)):
        found = device.batch([standardized[n] for n in order])
        for n, result in zip(order, found, strict=True):
            assert_same(result, expected[n])


def test_engines_that_cannot_be_recorded(pair: Pair, standardized: list[NetworkInput]) -> None:
    host, device = pair(SOME, network=NETWORK, kind=Eager)
    for view in standardized:
        assert_same(device(view), host(view))


def test_the_steps_are_those_of_the_network(pair: Pair, driver: FakeDriver) -> None:
    _, device = pair(SOME, network=NETWORK)
    device(raw_view(0))
    with driver.recorded() as lines:
        device(raw_view(1))
    work = [line.removeprefix("> ") for line in lines if line.startswith(">")]
    patches = ["propose"] * SOME + ["crop"] if SOME else []
    kernels = [name for name in work if name in ("moments", "standardize", "propose", "crop", "fuse", "enlarge")]
    assert kernels == ["moments", "standardize", *patches, "enlarge"]
    assert (work.count("copy in"), work.count("copy out")) == (1, 2), "the samples of the placing, and the result"


@pytest.mark.parametrize("flat", [(0,), (0, 1)])
def test_maps_without_contrast(pair: Pair, standardized: list[NetworkInput], flat: tuple[int, ...]) -> None:
    """Without patches there is no selection that contrast could matter to."""
    host, device = pair(SOME, network=NETWORK, flat=flat)
    found = device(standardized[0])
    assert_same(found, host(standardized[0]))
    assert ("no-contrast" in [notice.code for notice in found.notices]) == bool(SOME)


OUTPUTS = [(stage, name) for stage in NETWORK.stages for name in NETWORK.contract(stage).outputs]


@pytest.mark.parametrize(("stage", "output"), OUTPUTS)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_numbers_that_are_not_finite(
    pair: Pair, standardized: list[NetworkInput], stage: str, output: str, value: float
) -> None:
    """Each output of each graph, by its name and with its number of values, as on the host."""
    host, device = pair(SOME, network=NETWORK, wrong={output: value})
    with pytest.raises(BackendRunError, match=f"{stage} engine: .* of '{output}' are NaN or infinite"):
        host(standardized[0])
    shape = NETWORK.contract(stage).outputs[output].shape
    count = SOME if output == "attention" else np.prod(shape) * (SOME if stage == "local" else 1)
    words = f"{stage} engine: {count} of {count} values of '{output}' are NaN or infinite"
    with pytest.raises(BackendRunError, match=words):
        device(standardized[0])


@pytest.mark.parametrize("kind", KINDS)
def test_tensorrt_engines(gpu: Gpu, driver: FakeDriver, standardized: list[NetworkInput], kind: str) -> None:
    """Of made-up libraries, whose maps let rounding decide on patches: the scores must be those of these patches."""
    trt = library(kind, gpu, driver)
    content = {stage: plan(stage, network=NETWORK) for stage in NETWORK.stages}
    engines = {s: TensorRtEngine(trt, one, s, network=NETWORK, gpu=gpu) for s, one in content.items()}
    opened = GpuEngines(engines=engines, identity=fake_identity("fp16"), gpu=gpu, kernels=kernels(gpu, NETWORK))
    host = fake_engines(network=NETWORK)
    results = Pipeline(opened, patches=SOME, provenance={}).batch(standardized * 2)
    for found, view in zip(results, standardized * 2, strict=True):
        maps = host_chain.run_global(host["global"], view.image[None, None])
        np.testing.assert_allclose(found.saliency_global, maps.saliency[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.y_global, maps.y_global[0], rtol=0, atol=1e-6)
        if SOME:
            pixels = patching.crop(view.image, found.patch_locations, NETWORK.patches.side)[None]
            patches = Patches(locations=found.patch_locations[None], pixels=pixels, flat=np.zeros((1, 2), bool))
            local = host_chain.run_local(host["local"], patches)
            scores = host_chain.run_fusion(host["fusion"], maps, patches, local)
            for name in ("y_local", "y_fusion", "attention"):
                np.testing.assert_allclose(getattr(found, name), getattr(scores, name)[0], rtol=0, atol=1e-6)


def download(slot: Any, array: DeviceArray) -> np.ndarray:
    values = np.empty(array.shape, array.dtype)
    slot.stream.copy_out(values.ctypes.data, array.address, array.nbytes)
    slot.stream.synchronize()
    return values


def test_results_stay_on_the_gpu(pair: Pair, standardized: list[NetworkInput]) -> None:
    host, device = pair(SOME, network=NETWORK)
    with device.slot() as slot:
        assert {name for name, value in vars(slot).items() if value is None and name[0] != "_"} == ABSENT[NETWORK.name]
        for view in standardized:
            slot.stream.copy_in(slot.image.address, view.image.ctypes.data, view.image.nbytes)
            slot.run()
            expected = host(view)
            np.testing.assert_allclose(download(slot, slot.saliency)[0], expected.saliency(), rtol=0, atol=2e-6)
            assert download(slot, slot.flags).tolist() == [0]
            assert_same(slot.result(placed=view), expected)


def test_the_flags_are_those_of_the_last_run(pair: Pair, standardized: list[NetworkInput]) -> None:
    """NaN in one image spoils the map too; the next image is not blamed for it."""
    _, device = pair(SOME, network=NETWORK)
    good = standardized[0].image
    spoilt = good.copy()
    spoilt[100, 100] = np.nan
    with device.slot() as slot:
        for image, flags in ((good, 0), (spoilt, 4 + 16), (good, 0)):
            slot.stream.copy_in(slot.image.address, image.ctypes.data, image.nbytes)
            slot.run()
            found = download(slot, slot.flags)
            assert found.tolist() == [flags]

"""The chain with ONNX Runtime's CUDA engines, with made-up sessions. Run by test_on_fake_gpu.py."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_cuda.control import FakeDriver
from support.chains import assert_same, kernels, on_host, raw_view, stage_engines
from support.engines import fake_identity
from support.onnxruntime_cuda import World, said

from glam_deploy.engines import onnxruntime
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines import onnxruntime_cuda
from glam_deploy.gpu.engines.base import GpuEngines
from glam_deploy.gpu.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine
from glam_deploy.networks import GLAM_CONCATENATION, STAGES
from glam_deploy.preprocess import prepare
from glam_deploy.runtime.pipeline import Pipeline

NETWORK = GLAM_CONCATENATION
RECORDED = {"state": "recorded", "reason": None}
Make = Callable[..., Pipeline]


@pytest.fixture
def world(gpu: Gpu, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> World:
    made, computed = World(gpu, driver), stage_engines(network=NETWORK)
    made.engine = lambda stage, _: computed[stage]
    monkeypatch.setattr(onnxruntime, "ort", made.library)
    monkeypatch.setattr(onnxruntime_cuda, "ort", made.library)
    return made


@pytest.fixture
def make(world: World, gpu: Gpu) -> Make:
    def pipeline(patches: int = 1, *, slots: int = 1) -> Pipeline:
        engines = {
            stage: OnnxRuntimeCudaEngine(said(stage, NETWORK), stage, network=NETWORK, gpu=gpu) for stage in STAGES
        }
        opened = GpuEngines(engines=engines, identity=fake_identity(), gpu=gpu, kernels=kernels(gpu))
        return Pipeline(opened, patches=patches, provenance={}, slots=slots)

    return pipeline


@pytest.fixture(scope="module")
def host() -> Pipeline:
    return on_host(stage_engines(network=NETWORK))


def test_all_after_the_placing_is_one_graph(make: Make, host: Pipeline, world: World, driver: FakeDriver) -> None:
    """Of each kind of input; each view after the first of its kind is launched with no call of the library."""
    device = make()
    views = [raw_view(0), prepare(raw_view(1)), raw_view(2), prepare(raw_view(3))]
    for view in views[:2]:
        assert device(view).provenance["cuda_graph"] == RECORDED
    runs = [session.runs for session in world.sessions]
    with driver.recorded() as lines:
        results = [device(view) for view in views[2:]]
    assert [session.runs for session in world.sessions] == runs
    assert lines.count("cuGraphLaunch") == 3, "two for a raw view, whose placing is a graph of its own"
    assert not {"cuMemAlloc", "cuLaunchKernel"} & set(lines)
    for result, view in zip(results, views[2:], strict=True):
        assert result.provenance["cuda_graph"] == RECORDED
        assert_same(result, host(view))


def test_slots_in_threads_and_an_exam(make: Make, host: Pipeline, world: World) -> None:
    """Each slot has its own sessions, which a thread other than the one that recorded them may use."""
    device = make(slots=2)
    views = [raw_view(seed) for seed in range(4)]
    expected = [host(view) for view in views]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(device, views))
    for results in (found, device.batch(views)):
        for result, truth in zip(results, expected, strict=True):
            assert result.provenance["cuda_graph"] == RECORDED
            assert_same(result, truth)
    streams = {session.options["user_compute_stream"] for session in world.sessions if session.runs}
    assert len(streams) == 3, "two slots for one view, one for four"


@pytest.mark.parametrize("fault", ["copying", "waiting"])
def test_a_stage_that_cannot_be_recorded_costs_no_result(
    make: Make, host: Pipeline, world: World, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    getattr(world, fault).add("fusion")
    device = make()
    for seed in (0, 1):
        view = raw_view(seed)
        result = device(view)
        assert_same(result, host(view))
        recording = result.provenance["cuda_graph"]
        assert recording["state"] == "failed"
        assert recording["reason"].startswith("fusion engine: ")
    assert len(caplog.records) == 1


def test_a_pipeline_that_is_dropped_with_a_run_under_way(
    make: Make, world: World, driver: FakeDriver, capfd: pytest.CaptureFixture[str]
) -> None:
    """Graph, sessions and memory go in an order in which the driver has nothing to object to."""
    gc.collect()
    before = driver.live()
    device = make()
    device(raw_view(0))
    device.submit(raw_view(1))
    del device
    world.sessions.clear()
    gc.collect()
    assert driver.live() == before
    assert "fake CUDA driver" not in capfd.readouterr().err

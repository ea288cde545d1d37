"""One pipeline on several GPUs with the true kernels. Run by test_on_fake_gpu.py with three.

Engines and kernels refuse memory of another GPU, so a result shows that its run was on one GPU alone.
"""

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fake_cuda.control import HOST, FakeDriver
from support.chains import assert_same, break_gpu, on_host, opened_on, raw_view, stage_engines

from glam_deploy.errors import BackendRunError, GpuLost, InputError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.preprocess import prepare
from glam_deploy.records import Mammogram, NetworkInput, View
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result


@pytest.fixture(scope="module")
def gpus() -> list[Gpu]:
    """Two of three, in another order than the driver's."""
    return [Gpu(2), Gpu(1)]


@pytest.fixture
def several(gpus: list[Gpu], driver: FakeDriver) -> Pipeline:
    first, second = (opened_on(stage_engines(), gpu=gpu, driver=driver) for gpu in gpus)
    return Pipeline(first, patches=2, provenance={}, slots=1, replicas=[[second]])


@pytest.fixture(scope="module")
def host() -> Pipeline:
    return on_host(stage_engines(), 2)


@pytest.fixture(scope="module")
def views() -> list[NetworkInput]:
    return [prepare(raw_view(seed)) for seed in range(4)]


@pytest.fixture(autouse=True)
def repaired(driver: FakeDriver) -> Iterator[None]:
    yield
    driver.repair()


def indices(results: list[Result]) -> list[int]:
    return [result.provenance["gpu"]["index"] for result in results]


def test_results_are_those_of_the_host_in_order(
    several: Pipeline, host: Pipeline, views: list[NetworkInput], gpus: list[Gpu], driver: FakeDriver
) -> None:
    gc.collect()
    mixed = [*views, raw_view(7), raw_view(8)]
    found = list(several.map(mixed))
    assert indices(found) == [2, 1, 2, 1, 2, 1]
    assert {result.provenance["gpu"]["uuid"] for result in found} == {gpu.uuid for gpu in gpus}
    assert [result.provenance["cuda_graph"]["state"] for result in found] == ["recorded"] * 6
    for result, view in zip(found, mixed, strict=True):
        assert_same(result, host(view))
    assert [driver.live(device=n) > 0 for n in range(3)] == [False, True, True]


def test_threads_share_them(several: Pipeline, host: Pipeline, views: list[NetworkInput]) -> None:
    expected = [host(view) for view in views]

    def run(n: int) -> int:
        result = several(views[n % 4])
        assert_same(result, expected[n % 4])
        return int(result.provenance["gpu"]["index"])

    with ThreadPoolExecutor(4) as pool:
        assert {*pool.map(run, range(8))} == {1, 2}


def test_batches_and_a_view_that_cannot_be_used(several: Pipeline, host: Pipeline) -> None:
    """The views of its batch have their own results."""
    raw = [raw_view(seed) for seed in range(3)]
    empty = Mammogram(pixels=np.zeros((700, 500), np.uint16), view=View.L_CC)
    runs = several.submit_batch([raw[0], raw[1], empty, raw[2]])
    with pytest.raises(InputError):
        runs[2].result()
    for run, view in zip((runs[0], runs[1], runs[3]), raw, strict=True):
        assert_same(run.result(), host(view))
    whole = [run.result() for run in several.submit_batch([*raw, raw[0]])]
    assert len({*indices(whole)}) == 1
    for result, view in zip(whole, [*raw, raw[0]], strict=True):
        assert_same(result, host(view))


def test_a_gpu_that_fails_ends_the_pipeline_by_its_name(
    several: Pipeline, views: list[NetworkInput], gpus: list[Gpu]
) -> None:
    list(several.map(views[:2]))
    pending = [several.submit(view) for view in views[:2]]
    break_gpu(gpus[1])
    with pytest.raises(BackendRunError, match=rf"^GPU 1 \({gpus[1].uuid}\): .*CUDA_ERROR_ILLEGAL_ADDRESS"):
        pending[1].result()
    with pytest.raises(GpuLost, match=r"GPU 1 .*Its other GPUs are not used any more either"):
        several(views[0])


def test_nothing_stays_when_it_is_closed(several: Pipeline, views: list[NetworkInput], driver: FakeDriver) -> None:
    results = list(several.map(views[:2]))
    held = driver.live(HOST)
    several.close()
    gc.collect()
    assert held > driver.live(HOST)
    assert indices(results) == [2, 1]

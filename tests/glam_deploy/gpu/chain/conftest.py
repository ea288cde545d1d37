"""For the gpu_*.py beside this file."""

from collections.abc import Callable

import pytest
from fake_cuda.control import FakeDriver
from support.chains import on_gpu, on_host, stage_engines
from support.device import HostFunctionEngine

from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.runtime.pipeline import Pipeline

Pair = Callable[..., tuple[Pipeline, Pipeline]]


@pytest.fixture
def pair(gpu: Gpu, driver: FakeDriver) -> Pair:
    """Makes the pipelines of the same engines (`stage_engines`) on the host and on the GPU."""

    def make(
        patches: int = 1, *, slots: int = 1, kind: type[HostFunctionEngine] = HostFunctionEngine, **engines: object
    ) -> tuple[Pipeline, Pipeline]:
        host = stage_engines(**engines)
        return on_host(host, patches), on_gpu(host, patches, gpu=gpu, driver=driver, slots=slots, kind=kind)

    return make

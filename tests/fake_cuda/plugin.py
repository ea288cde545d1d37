"""pytest plugin of the processes that `outside.run_inside` starts.

Tests that need only `gpu` also run on a real one: PYTHONPATH=tests python -m pytest -p fake_cuda.plugin FILE.
"""

import os
from collections.abc import Iterator

import pytest

from fake_cuda.control import FakeDriver
from glam_deploy.gpu.device.gpu import Gpu

DRIVER = FakeDriver() if "GLAM_FAKE_CUDA_KERNELS" in os.environ else None


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    """The fake driver. Tests that take it cannot run on a real GPU."""
    if DRIVER is None:
        pytest.skip("needs the fake driver")
    yield DRIVER
    if DRIVER.failures:
        raise DRIVER.failures.pop()


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    """The GPU, fake or real; of several that of the index in GLAM_TEST_GPU."""
    return Gpu(int(os.environ.get("GLAM_TEST_GPU", "0")))

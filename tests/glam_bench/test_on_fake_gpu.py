"""What needs a GPU, on the fake one."""

from pathlib import Path

import pytest
from cuda_host.build import build_kernels, missing
from expected import need
from fake_cuda.outside import run_inside

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("g++", missing())
    return build_kernels(tmp_path_factory.mktemp("kernels"))


def test_kernel_checks_and_times(library: Path) -> None:
    run_inside(HERE / "gpu_kernels.py", HERE / "gpu_times.py", kernels=[library])

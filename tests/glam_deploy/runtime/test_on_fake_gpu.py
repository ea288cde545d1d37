"""The pipeline on the fake GPU: each gpu_*.py beside this file, in a process of its own."""

from pathlib import Path

import pytest
from cuda_host.build import build_kernels, missing
from expected import need
from fake_cuda.outside import run_inside

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real kernels for the CPU."""
    need("g++", missing())
    return build_kernels(tmp_path_factory.mktemp("kernels"))


@pytest.mark.slow  # full-size networks: a minute and a half together
@pytest.mark.parametrize("file", sorted(HERE.glob("gpu_*.py")), ids=lambda file: file.stem)
def test_on_the_fake_gpu(file: Path, kernels: Path) -> None:
    run_inside(file, kernels=[kernels])

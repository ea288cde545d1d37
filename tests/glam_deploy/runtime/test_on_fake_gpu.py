"""The pipeline on the fake GPU: each gpu_*.py beside this file, in a process of its own."""

from pathlib import Path

import pytest
from cuda_host.build import build_kernels, missing
from expected import need
from fake_cuda.outside import run_inside

HERE = Path(__file__).parent
FILES = [
    # the others go the same way with more at once, and have full-size networks: minutes together
    pytest.param(file, id=file.stem, marks=[] if file.stem == "gpu_chain" else pytest.mark.slow)
    for file in sorted(HERE.glob("gpu_*.py"))
]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real kernels for the CPU."""
    need("g++", missing())
    return build_kernels(tmp_path_factory.mktemp("kernels"))


@pytest.mark.parametrize("file", FILES)
def test_on_the_fake_gpu(file: Path, kernels: Path) -> None:
    run_inside(file, kernels=[kernels])

"""The pipeline on the fake GPU: each gpu_*.py beside this file, in a process of its own."""

from pathlib import Path

import pytest
from fake_cuda.outside import run_inside

HERE = Path(__file__).parent


@pytest.mark.slow  # full-size networks: a minute and a half together
@pytest.mark.parametrize("file", sorted(HERE.glob("gpu_*.py")), ids=lambda file: file.stem)
def test_on_the_fake_gpu(file: Path, host_kernels: Path) -> None:
    run_inside(file, kernels=[host_kernels])

"""What needs a GPU, on the fake one."""

from pathlib import Path

import pytest
from fake_cuda.outside import run_inside

HERE = Path(__file__).parent


@pytest.mark.slow
def test_kernel_checks_and_times(host_kernels: Path) -> None:
    run_inside(HERE / "gpu_kernels.py", HERE / "gpu_times.py", kernels=[host_kernels])

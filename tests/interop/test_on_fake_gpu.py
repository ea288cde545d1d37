"""The slot's arrays in other hands, on the fake GPU."""

from pathlib import Path

import pytest
from fake_cuda.outside import run_inside


@pytest.mark.slow
def test_on_the_fake_gpu(host_kernels: Path) -> None:
    run_inside(Path(__file__).with_name("gpu_stand_in.py"), kernels=[host_kernels])

"""The slot's arrays in other hands, on the fake GPU."""

from pathlib import Path

import pytest
from cuda_host.build import build_kernels, missing
from expected import need
from fake_cuda.outside import run_inside


def test_on_the_fake_gpu(tmp_path_factory: pytest.TempPathFactory) -> None:
    need("g++", missing())
    run_inside(Path(__file__).with_name("gpu_stand_in.py"), kernels=[build_kernels(tmp_path_factory.mktemp("kernels"))])

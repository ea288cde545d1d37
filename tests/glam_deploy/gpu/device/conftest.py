"""Kernels of these tests only, compiled for the GPU by NVRTC and for the fake one by g++."""

from pathlib import Path

import pytest

from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.kernel import Module, compile_cubin

TOYS = Path(__file__).with_name("toys.cu")


@pytest.fixture(scope="session")
def toys(gpu: Gpu) -> Module:
    """The kernels of toys.cu."""
    return gpu.load(compile_cubin(TOYS.read_text(), architecture=gpu.architecture, name=TOYS.name))

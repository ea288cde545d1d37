"""Kernels of these tests only, compiled for the GPU by NVRTC and for the fake one by g++."""

from pathlib import Path

import pytest

from glam_deploy.device.compile import compile_cubin
from glam_deploy.device.gpu import Gpu
from glam_deploy.device.kernel import Module

TOYS = Path(__file__).with_name("toys.cu")


@pytest.fixture(scope="session")
def toys(gpu: Gpu) -> Module:
    """The kernels of toys.cu."""
    return gpu.load(compile_cubin(TOYS.read_text(), architecture=gpu.architecture, name=TOYS.name))

"""The kernels on the CPU."""

from pathlib import Path

import pytest
from cuda_host.run import HostModule

from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.networks import GLAM


@pytest.fixture(scope="session")
def module(host_kernels: Path) -> HostModule:
    return HostModule(host_kernels)


@pytest.fixture(scope="session")
def kernels(module: HostModule) -> Kernels:
    return Kernels(module, GLAM)

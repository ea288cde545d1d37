"""The kernels compiled for the CPU, once a session."""

import pytest
from cuda_host.build import build_kernels, missing
from cuda_host.run import HostModule
from expected import need

from glam_deploy.kernels.launch import Kernels


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> HostModule:
    need("g++", missing())
    return HostModule(build_kernels(tmp_path_factory.mktemp("kernels")))


@pytest.fixture(scope="session")
def kernels(module: HostModule) -> Kernels:
    return Kernels(module)

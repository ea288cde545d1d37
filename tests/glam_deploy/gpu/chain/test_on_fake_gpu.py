"""The pipeline on the fake GPU: each gpu_*.py beside this file, in a process of its own."""

from pathlib import Path

import pytest
from cuda_host.build import build_kernels
from fake_cuda.outside import run_inside

from glam_deploy.networks import CAM, GMIC, NetworkSpec

HERE = Path(__file__).parent
OTHERS = HERE / "gpu_other_networks.py"
SEVERAL = HERE / "gpu_several.py"


@pytest.mark.slow  # full-size networks: a minute and a half together
@pytest.mark.parametrize("file", sorted({*HERE.glob("gpu_*.py")} - {OTHERS, SEVERAL}), ids=lambda file: file.stem)
def test_on_the_fake_gpu(file: Path, host_kernels: Path) -> None:
    run_inside(file, kernels=[host_kernels])


@pytest.mark.slow
def test_on_several_fake_gpus(host_kernels: Path) -> None:
    run_inside(SEVERAL, kernels=[host_kernels], env={"GLAM_FAKE_CUDA_DEVICES": "3"})


@pytest.mark.slow
@pytest.mark.parametrize("network", [GMIC, CAM], ids=lambda network: network.name)
def test_other_networks(network: NetworkSpec, host_kernels: Path) -> None:
    """A process for each, because the stand-in finds kernels by their names."""
    kernels = build_kernels(host_kernels.parent, network)
    run_inside(OTHERS, kernels=[kernels], env={"GLAM_TEST_NETWORK": network.name})

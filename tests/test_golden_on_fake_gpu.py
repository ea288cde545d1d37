"""The golden cases through the GPU's chain, on a machine without a GPU."""

from pathlib import Path

import pytest
from cuda_host.build import build_kernels
from fake_cuda.outside import run_inside

from glam_deploy.networks import GMIC

INSIDE = Path(__file__).parent / "golden" / "gpu_network.py"


@pytest.mark.network
@pytest.mark.slow
def test_golden_cases(golden_bundle: Path, host_kernels: Path) -> None:
    run_inside(INSIDE, kernels=[host_kernels], env={"GLAM_TEST_BUNDLE": str(golden_bundle)})


@pytest.mark.network
@pytest.mark.slow
def test_attention_of_glam(joint_bundle: Path, host_kernels: Path) -> None:
    run_inside(INSIDE, kernels=[host_kernels], env={"GLAM_TEST_BUNDLE": str(joint_bundle)})


@pytest.mark.network
@pytest.mark.slow
def test_golden_cases_of_gmic(gmic_bundle: Path, host_kernels: Path) -> None:
    kernels = build_kernels(host_kernels.parent, GMIC)
    run_inside(INSIDE, kernels=[kernels], env={"GLAM_TEST_BUNDLE": str(gmic_bundle)})

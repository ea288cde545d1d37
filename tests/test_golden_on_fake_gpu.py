"""The golden cases through the GPU's chain, on a machine without a GPU."""

from pathlib import Path

import pytest
from cuda_host.build import build_kernels, missing
from expected import need
from fake_cuda.outside import run_inside

INSIDE = Path(__file__).parent / "golden" / "gpu_network.py"


@pytest.mark.network
@pytest.mark.slow
def test_golden_cases(golden_bundle: Path, tmp_path: Path) -> None:
    need("g++", missing())
    run_inside(INSIDE, kernels=[build_kernels(tmp_path)], env={"GLAM_TEST_BUNDLE": str(golden_bundle)})

"""The golden cases through the GPU's chain, on a machine without a GPU."""

from pathlib import Path

import pytest
from fake_cuda.outside import run_inside

INSIDE = Path(__file__).parent / "golden" / "gpu_network.py"


@pytest.mark.network
@pytest.mark.slow
def test_golden_cases(golden_bundle: Path, host_kernels: Path) -> None:
    run_inside(INSIDE, kernels=[host_kernels], env={"GLAM_TEST_BUNDLE": str(golden_bundle)})

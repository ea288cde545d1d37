"""The device room with the fake driver: each gpu_*.py beside this file, in a process of its own."""

import subprocess
from pathlib import Path

import pytest
from cuda_host.build import COMPILER, QUIET, SHIM
from fake_cuda.outside import run_inside

HERE = Path(__file__).parent
SEVERAL = HERE / "gpu_several.py"
NAMES = ("scale", "tell", "where", "nothing")
STRAY = """
EXPORTED void glam_host_stray(const unsigned*, const unsigned*, void** arguments) {
    stray(*static_cast<float**>(arguments[0]), *static_cast<long long*>(arguments[1]));
}
"""
"""Not through the shim, whose fibers and locks a fault would leave in disorder."""


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """toys.cu for the CPU."""
    folder = tmp_path_factory.mktemp("toys")
    exports = "".join(f"GLAM_HOST({name})\n" for name in NAMES)
    unit = folder / "toys.cpp"
    unit.write_text(f'#include "{SHIM}"\n#include "{HERE / "toys.cu"}"\n{exports}{STRAY}')
    subprocess.run([*COMPILER, *QUIET, "-O1", "-o", folder / "toys.so", unit], check=True)
    return folder / "toys.so"


@pytest.mark.parametrize("file", sorted({*HERE.glob("gpu_*.py")} - {SEVERAL}), ids=lambda file: file.stem)
def test_on_the_fake_gpu(file: Path, toys: Path) -> None:
    run_inside(file, kernels=[toys])


def test_on_several_fake_gpus(toys: Path) -> None:
    run_inside(SEVERAL, kernels=[toys], env={"GLAM_FAKE_CUDA_DEVICES": "3"})

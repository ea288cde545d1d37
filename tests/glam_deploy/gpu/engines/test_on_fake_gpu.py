"""Engines on the fake GPU: the gpu_*.py beside this file, in one process, for each costs seconds."""

import subprocess
from pathlib import Path

import pytest
from cuda_host.build import COMPILER
from fake_cuda.outside import run_inside

from glam_deploy.gpu.kernels.launch import KERNELS

HERE = Path(__file__).parent
IDLE = """
extern "C" __attribute__((visibility("default"))) void glam_host_{0}(const unsigned*, const unsigned*, void**) {{}}
extern "C" __attribute__((visibility("default"))) unsigned glam_host_parameters_{0}(unsigned long*) {{ return 0; }}
"""


@pytest.fixture(scope="module")
def idle_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What can be loaded where the kernels are, and is never launched here."""
    folder = tmp_path_factory.mktemp("idle")
    (folder / "idle.cpp").write_text("".join(IDLE.format(name) for name in KERNELS))
    subprocess.run([*COMPILER, "-o", folder / "idle.so", folder / "idle.cpp"], check=True)
    return folder / "idle.so"


@pytest.mark.slow
def test_on_the_second_of_two(idle_kernels: Path) -> None:
    """Each call of a library finds the GPU of its engine current, which is not the one that it finds without."""
    files = (HERE / f"gpu_{name}.py" for name in ("device_base", "onnxruntime", "tensorrt"))
    run_inside(*files, kernels=[idle_kernels], env={"GLAM_FAKE_CUDA_DEVICES": "2", "GLAM_TEST_GPU": "1"})


@pytest.mark.slow
def test_on_the_fake_gpu(idle_kernels: Path) -> None:
    run_inside(*sorted(HERE.glob("gpu_*.py")), kernels=[idle_kernels])

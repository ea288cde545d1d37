"""Compilation by the real NVRTC: no GPU is needed."""

import os
import subprocess
import sys

import pytest
from support.commands import ROOT, install_line, without

from glam_deploy.errors import BackendBuildError
from glam_deploy.gpu.device.kernel import compile_cubin

SCALE = """
extern "C" __global__ void scale(const float* from, float* to, float factor, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) to[i] = from[i] * factor + 1.0f;
}
"""
SM_OF_ELF = {"sm_75": 75, "sm_80": 80, "sm_86": 86, "sm_89": 89, "sm_90": 90, "sm_100": 100, "sm_120": 120}


def architecture_of(cubin: bytes) -> int:
    """From the ELF header: e_flags holds the architecture in its second byte (since CUDA 13) or in its first."""
    flags = int.from_bytes(cubin[48:52], "little")
    return (flags >> 8) & 0xFF or flags & 0xFF


@pytest.mark.parametrize("architecture", SM_OF_ELF)
def test_machine_code_is_of_the_architecture_asked_for(architecture: str) -> None:
    cubin = compile_cubin(SCALE, architecture=architecture, name="scale.cu")
    assert cubin.startswith(b"\x7fELF")
    assert b".text.scale\0" in cubin
    assert architecture_of(cubin) == SM_OF_ELF[architecture]


def test_compiling_again_gives_the_same_bytes() -> None:
    assert len({compile_cubin(SCALE, architecture="sm_89", name="scale.cu") for _ in range(2)}) == 1


def test_no_product_is_contracted_into_a_sum() -> None:
    """The machine code of a contracted form differs; that of explicit rounding does not."""
    rounded = SCALE.replace("from[i] * factor + 1.0f", "__fadd_rn(__fmul_rn(from[i], factor), 1.0f)")
    contracted = SCALE.replace("from[i] * factor + 1.0f", "__fmaf_rn(from[i], factor, 1.0f)")
    plain, same, other = (
        compile_cubin(source, architecture="sm_90", name="scale.cu") for source in (SCALE, rounded, contracted)
    )
    assert plain == same
    assert plain != other


def test_a_mistake_is_told_in_the_words_of_nvrtc() -> None:
    with pytest.raises(BackendBuildError, match=r"(?s)scale\.cu does not compile for sm_90.*scale\.cu\(\d+\): error"):
        compile_cubin(SCALE.replace("float factor", "flaot factor"), architecture="sm_90", name="scale.cu")


@pytest.mark.parametrize("architecture", ["sm_12", "9.0", "sm_90; rm"])
def test_an_unknown_architecture_is_refused(architecture: str) -> None:
    with pytest.raises(BackendBuildError, match="does not compile for"):
        compile_cubin(SCALE, architecture=architecture, name="scale.cu")


def test_a_missing_package_is_named() -> None:
    code = without(
        "cuda",
        code="from glam_deploy.gpu.device.kernel import compile_cubin\n"
        "from glam_deploy.errors import BackendUnavailable\n"
        "try: compile_cubin('', architecture='sm_90', name='x')\n"
        "except BackendUnavailable as error: print(error)",
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert "cuda-core is missing" in done.stdout
    assert install_line("tensorrt-rtx") in done.stdout

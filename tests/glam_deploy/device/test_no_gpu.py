"""What a machine says that lacks a package, the driver, a GPU, or this one."""

import ctypes

import pytest
from fake_cuda.outside import environment
from support_commands import start_process, without

OPEN = """
import sys
from glam_deploy.device.driver import call
from glam_deploy.device.gpu import Gpu
from glam_deploy.errors import BackendUnavailable
name, argument = sys.argv[1:]
try:
    Gpu(int(argument)) if name == "Gpu" else call(name, int(argument))
except BackendUnavailable as error:
    print(error)
"""


def said(name: str, argument: int, *, code: str = OPEN, **env: str) -> str:
    out, err = start_process(name, argument, code=code, env=env).communicate()
    assert err == ""
    return out.strip()


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def test_a_missing_package_is_named() -> None:
    words = said("Gpu", 0, code=without("cuda", code=OPEN))
    assert words.startswith("the Python package cuda-bindings is missing")
    assert 'pip install "glam-deploy[tensorrt-rtx]"' in words


@pytest.mark.skipif(has_driver(), reason="this machine has a driver")
def test_a_missing_driver_is_named() -> None:
    assert said("Gpu", 0).startswith("libcuda.so.1, NVIDIA's driver, is missing. Install it")


def test_no_gpu_at_all() -> None:
    words = said("Gpu", 0, **environment(), GLAM_FAKE_CUDA_DEVICES="0")
    assert words.startswith(
        "GPU 0 cannot be used: cuInit failed with CUDA_ERROR_NO_DEVICE (100). There is no NVIDIA GPU"
    )


@pytest.mark.parametrize("index", [1, -1])
def test_no_gpu_of_that_index(index: int) -> None:
    assert said("Gpu", index, **environment()) == f"GPU {index} was asked for; this machine shows 1, counted from 0"


def test_a_driver_too_old_for_a_call() -> None:
    """The fake one has no green contexts."""
    words = said("cuGreenCtxDestroy", 0, **environment())
    assert words.startswith("NVIDIA's driver on this machine has no cuGreenCtxDestroy")
    assert words.endswith("install a newer driver.")

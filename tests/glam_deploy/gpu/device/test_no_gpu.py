"""What a machine says that lacks a package, the driver, a GPU, or this one."""

import ctypes
import re
from pathlib import Path

import pytest
from fake_cuda.outside import environment
from support.commands import install_line, start_process, without

from glam_deploy.gpu.device import driver

OPEN = """
import sys
from glam_deploy.gpu.device.driver import call
from glam_deploy.gpu.device.gpu import Gpu
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
    assert install_line("tensorrt-rtx") in words


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
    assert said("Gpu", index, **environment()) == f"there is no GPU {index}: this machine has 1 GPUs, counted from 0"


def test_a_driver_too_old_for_a_call() -> None:
    """The fake one has no green contexts."""
    words = said("cuGreenCtxDestroy", 0, **environment())
    assert words.startswith("NVIDIA's driver on this machine has no function cuGreenCtxDestroy")
    assert words.endswith("install a newer driver.")


NEWER = "Install NVIDIA's driver 580 or later and restart the machine; a container uses the driver of its host."


@pytest.mark.parametrize(("version", "cuda"), [("12090", "12.9"), ("12020", "12.2"), ("11080", "11.8")])
def test_a_driver_of_an_older_cuda_is_named_by_its_version(version: str, cuda: str) -> None:
    words = said("Gpu", 0, **environment(), GLAM_FAKE_CUDA_VERSION=version)
    found = re.fullmatch(
        rf"NVIDIA's driver (\S+) is too old: it supports CUDA {cuda}, and CUDA 13 is needed\. (.*)", words
    )
    assert found is not None, words
    assert found[2].startswith(NEWER)


@pytest.mark.parametrize("version", ["13000", "13050", "14000"])
def test_drivers_of_cuda_13_and_later_are_taken(version: str) -> None:
    assert said("Gpu", 0, **environment(), GLAM_FAKE_CUDA_VERSION=version) == ""


@pytest.mark.parametrize(
    ("status", "name", "remedy"),
    [
        (34, "CUDA_ERROR_STUB_LIBRARY", "remove its folder from LD_LIBRARY_PATH"),
        (36, "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER", NEWER),
        (802, "CUDA_ERROR_SYSTEM_NOT_READY", "nvidia-fabricmanager"),
        (803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "restart the machine"),
        (804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", NEWER),
    ],
)
def test_a_driver_that_does_not_start(status: int, name: str, remedy: str) -> None:
    words = said("Gpu", 0, **environment(), GLAM_FAKE_CUDA_INIT=str(status))
    assert words.startswith(f"GPU 0 cannot be used: cuInit failed with {name} ({status}). ")
    assert remedy in words
    assert ("This is driver" in words) == (remedy == NEWER)


@pytest.mark.parametrize(
    ("content", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n", "535.183.01"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build",
            "580.95.05",
        ),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_version_of_the_kernel_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, version: str
) -> None:
    """Where NVML is not there, as in some containers."""
    if content is not None:
        (tmp_path / "version").write_text(content)
    monkeypatch.setattr(driver, "MODULE", tmp_path / "version")
    monkeypatch.setattr(driver, "_nvml_version", lambda: "")
    assert driver.version() == version


def test_errors_of_libraries_are_explained_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "version", lambda: "535.183.01")
    words = driver.explain_library("CUDA initialization failure with error: 35")
    assert words.startswith(f"CUDA initialization failure with error: 35. This is driver 535.183.01. {NEWER}")
    assert "There is no NVIDIA GPU" in driver.explain_library("CUDA initialization failure with error: 100")
    assert driver.explain_library("Error Code 2: OutOfMemory") == "Error Code 2: OutOfMemory"

"""From a test outside: run a file of tests in a process that has the fake driver.

Such a file is named gpu_*.py, so that pytest does not collect it by itself. Its tests take the fixtures of plugin.py
and those of conftest.py in its own folder.

    def test_on_the_fake_gpu(tmp_path_factory):
        run_inside(Path(__file__).with_name("gpu_streams.py"), kernels=[library])
"""

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from support_commands import ROOT, start_process

from fake_cuda.build import COMPILER, LIBRARY, build_driver

INSIDE = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """With the driver, built once a process; it goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="glam-fake-cuda-")
    build_driver(Path(folder.name))
    return folder


def run_inside(*files: Path, kernels: Sequence[Path] = (), env: Mapping[str, str] | None = None) -> None:
    """Run test files with the fake driver and fail where they fail, with their report.

    `kernels`: libraries with `glam_host_NAME` functions (tests/cuda_host/build.py). `env` is added to this process's.
    Skips where there is no g++.
    """
    if not shutil.which(COMPILER[0]):
        pytest.skip(f"needs {COMPILER[0]}")
    settings = {
        "GLAM_FAKE_CUDA": str(Path(_folder().name) / LIBRARY),
        "GLAM_FAKE_CUDA_KERNELS": ":".join(map(str, kernels)),
        **(env or {}),
    }
    options = (
        "-q",
        "-p",
        "fake_cuda.plugin",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        f"--confcutdir={files[0].parent}",
    )
    process = start_process(*options, *files, code=INSIDE, env=settings, cwd=ROOT, stderr=subprocess.STDOUT)
    report, _ = process.communicate()
    if process.returncode:
        pytest.fail(f"on the fake GPU:\n{report}", pytrace=False)

"""From a test outside: run a file of tests, or anything else, in a process that has the fake driver.

A file of tests is named gpu_*.py, which pytest does not collect by itself. Its tests take the fixtures of plugin.py
and those of conftest.py in its own folder.

    def test_on_the_fake_gpu():
        run_inside(Path(__file__).with_name("gpu_streams.py"), kernels=[library])
"""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from support.commands import ROOT, start_process

from fake_cuda.build import COMPILER, build_driver

INSIDE = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """With the driver, built once a process; it goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="glam-fake-cuda-")
    build_driver(Path(folder.name))
    return folder


def environment(kernels: Sequence[Path] = ()) -> dict[str, str]:
    """What a process must have in its environment to find the fake driver.

    `kernels`: libraries with `glam_host_NAME` functions (tests/cuda_host/build.py). Skips where there is no g++.
    """
    if not shutil.which(COMPILER[0]):
        pytest.skip(f"needs {COMPILER[0]}")
    return {
        "LD_LIBRARY_PATH": os.pathsep.join([_folder().name, os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(os.pathsep),
        "GLAM_FAKE_CUDA_KERNELS": os.pathsep.join(map(str, kernels)),
    }


def run_inside(*files: Path, kernels: Sequence[Path] = (), env: Mapping[str, str] | None = None) -> None:
    """Run test files with the fake driver and fail where they fail, with their report.

    `kernels` as for `environment`; `env` is added to it.
    """
    settings = environment(kernels) | dict(env or {})
    without = (flag for plugin in ("cacheprovider", "hypothesispytest") for flag in ("-p", f"no:{plugin}"))
    options = ("-q", "-p", "fake_cuda.plugin", *without, f"--confcutdir={files[0].parent}")
    process = start_process(*options, *files, code=INSIDE, env=settings, cwd=ROOT, stderr=subprocess.STDOUT)
    report, _ = process.communicate()
    if process.returncode:
        pytest.fail(f"on the fake GPU:\n{report}", pytrace=False)

"""The tests of `gpu.device` and `gpu.chain` that run on a real GPU, where this is a checkout that has them."""

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from glam_bench.gpu.plan import GpuContext
from glam_deploy.errors import BackendRunError, BackendUnavailable
from glam_deploy.installation import TREE
from glam_deploy.processes import python_command

ROOMS = ("device", "chain")
RESERVE_S = 5.0
"""Left at the end of the time limit to read the results."""
SHOWN = 3000
"""Characters of a failure that are kept."""


def run(context: GpuContext) -> None:
    """The tests of one folder after the other; those that need the fake driver skip themselves.

    Raises BackendUnavailable where there are no tests or no pytest, BackendRunError where a test fails.
    """
    rooms = {room: files_of(room) for room in ROOMS}
    if not all(rooms.values()):
        raise BackendUnavailable(
            f"no tests beside this installation: {TREE / 'tests'} has no gpu_*.py. They come with a checkout of the "
            f"repository and with its sdist; run there: python -m glam_bench.gpu_check"
        )
    if find_spec("pytest") is None:
        raise BackendUnavailable("pytest is missing, which these tests need. Install it with: pip install pytest")
    failed: list[str] = []
    for room, files in rooms.items():
        left = context.seconds_left - RESERVE_S
        limit = None if left == float("inf") else max(1.0, left)
        found = run_files(files, context.options.work / f"{room}.xml", limit)
        context.add(**{room: found})
        failed += found["failed"]
    if failed:
        raise BackendRunError(f"{len(failed)} tests fail on this GPU: {', '.join(failed)}")


def files_of(room: str) -> list[Path]:
    """Files of tests that take a GPU, fake or real."""
    return sorted((TREE / "tests/glam_deploy/gpu" / room).glob("gpu_*.py"))


def run_files(files: list[Path], report: Path, limit_s: float | None) -> dict[str, Any]:
    """How many tests passed and were skipped, and which failed, with the text of each failure."""
    folders = ("", "export", "benchmarks", "tests")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(TREE / folder) for folder in folders)}
    # without the settings and the conftest.py of the repository, which need plugins and packages
    options = ("-q", "-c", os.devnull, "--rootdir", TREE, "--import-mode=importlib", "-p", "fake_cuda.plugin")
    plain = ("-p", "no:cacheprovider", f"--confcutdir={files[0].parent}", f"--junitxml={report}")
    command = python_command("-m", "pytest", *options, *plain, *files)
    try:
        process = subprocess.run(
            command, check=False, cwd=TREE, env=env, capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return {"passed": 0, "skipped": 0, "failed": [f"{files[0].parent.name}: not done after {limit_s:.0f} s"]}
    if not report.exists():
        said = (process.stdout + process.stderr)[-SHOWN:]
        return {"passed": 0, "skipped": 0, "failed": [f"{files[0].parent.name}: {said}"]}
    return read(report)


def read(report: Path) -> dict[str, Any]:
    """Results of tests from a JUnit file."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))  # our own file
    wrong = {case: case.find("failure") if case.find("failure") is not None else case.find("error") for case in cases}
    failed = {f"{c.get('classname')}::{c.get('name')}": e.text or "" for c, e in wrong.items() if e is not None}
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - skipped - len(failed),
        "skipped": skipped,
        "failed": list(failed),
        "failures": {name: text[-SHOWN:] for name, text in failed.items()},
    }

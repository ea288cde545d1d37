"""Telemetry is off before a library can start it. `tests/outside` watches the system calls of whole commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import PATHS, PLAIN
from support.engines import small_view
from support.tiny_bundle import write_tiny_bundle

from glam_deploy.dicom.mammography import Exam, write_view


def run(tmp_path: Path, code: str, *arguments: object, **env: str) -> "subprocess.CompletedProcess[str]":
    """Python with an empty home folder and without what this process inherited."""
    (tmp_path / "home").mkdir()
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    kept |= {"HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(map(str, PATHS))}
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=kept | env, capture_output=True, text=True, check=False, cwd=tmp_path)


def home_files(tmp_path: Path) -> set[str]:
    return {path.relative_to(tmp_path / "home").as_posix() for path in (tmp_path / "home").rglob("*") if path.is_file()}


@pytest.mark.parametrize("package", ["glam_deploy", "glam_export", "glam_bench"])
@pytest.mark.parametrize("value", ["", "0"])
def test_every_package_switches_it_off_first(tmp_path: Path, package: str, value: str) -> None:
    code = f"import {package}, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], sys.modules['openvino_telemetry'])"
    said = run(tmp_path, code, ORT_DISABLE_TELEMETRY=value)
    assert (said.returncode, said.stdout, said.stderr) == (0, "1 None\n", "")


def test_a_command_leaves_the_home_folder_empty(tmp_path: Path) -> None:
    view = small_view()
    write_view(tmp_path / "a.dcm", view.pixels, view=view.view, exam=Exam(seed="telemetry"))
    bundle = write_tiny_bundle(tmp_path / "bundle")
    said = run(tmp_path, PLAIN, "run", tmp_path / "a.dcm", "--bundle", bundle, "--out", tmp_path / "out")
    assert said.returncode == 0, said.stderr
    assert home_files(tmp_path) == set()


def test_libraries_that_the_host_imported_first_are_stopped_and_the_host_is_told(tmp_path: Path) -> None:
    code = (
        "import onnxruntime, openvino.tools.ovc as ovc\n"
        "import glam_deploy\n"
        "from openvino_telemetry.utils.sender import TelemetrySender\n"
        "print(TelemetrySender.send.__name__)\n"
    )
    said = run(tmp_path, code, CI="true")  # OpenVINO's own telemetry respects it; nothing is sent before, either
    assert said.returncode == 0, said.stderr
    assert said.stdout == "_drop\n"
    assert said.stderr.count("UserWarning: ") == 2
    assert "set ORT_DISABLE_TELEMETRY=1 in the environment, or import glam_deploy before onnxruntime" in said.stderr


def test_a_host_that_has_switched_it_off_is_told_nothing(tmp_path: Path) -> None:
    said = run(tmp_path, "import onnxruntime; import glam_deploy", ORT_DISABLE_TELEMETRY="1")
    assert (said.returncode, said.stderr) == (0, "")
    assert home_files(tmp_path) == set()

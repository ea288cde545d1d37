"""The extras that documents and the Makefile install together have a solution, for a machine that takes all from PyPI.

There PyTorch for Linux is built for CUDA and demands exact versions of NVIDIA's packages, unlike a build for the CPU.
"""

import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import ROOT

pytestmark = pytest.mark.install

REQUIRED = runpy.run_path(str(ROOT / "packaging/lowest.py"))["required"]()
NOT_ON_PYPI = "tensorrt-cu13"
"""PyPI has a source distribution that fetches the package of NVIDIA's own index as it is built."""
PLATFORM = "x86_64-manylinux_2_36"


def installed_together() -> Iterator[str]:
    """The extras of every `pip install` with extras of this project: "export,dicom"."""
    for path in (ROOT / "Makefile", ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))):
        for line in path.read_text("utf-8").splitlines():
            if "pip install" in line:
                yield from re.findall(r'(?:"\.|\.whl|"glam-deploy)\)?"?\[([a-z,-]+)\]', line)


SETS = sorted({*installed_together(), "export,cuda,dicom", "export,tensorrt-rtx,dicom"})


@pytest.mark.parametrize("python", ["3.11", "3.13"])
@pytest.mark.parametrize("versions", ["any", "tested"])
@pytest.mark.parametrize("extras", SETS)
def test_extras_can_be_installed_together(extras: str, versions: str, python: str, tmp_path: Path) -> None:
    wanted = tmp_path / "requirements.in"
    lines = [str(each) for extra in ("", *extras.split(",")) for each in REQUIRED[extra] if each.name != NOT_ON_PYPI]
    wanted.write_text("".join(f"{line}\n" for line in lines))
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config", "--native-tls", str(wanted)]
    command += ["--default-index", "https://pypi.org/simple", "--python-version", python, "--python-platform", PLATFORM]
    if versions == "tested":
        command += ["--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if "export" in extras:
        assert "\ncuda-toolkit" in done.stdout, "this index has PyTorch for the CPU alone"

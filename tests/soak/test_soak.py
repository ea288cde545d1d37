"""A short soak, as `make soak` makes it: GLAM_SOAK_MINUTES, two by default, for the phase with the small network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from expected import need
from support.orthanc import missing

MINUTES = os.environ.get("GLAM_SOAK_MINUTES", "2")


@pytest.mark.soak
@pytest.mark.timeout(60 * float(MINUTES) + 2400)
def test_soak(tmp_path: Path) -> None:
    need("orthanc", missing())
    need("cc", "" if shutil.which("cc") else "a C compiler")
    need("root", "" if os.geteuid() == 0 else "the right to mount a tmpfs")
    program = Path(__file__).with_name("run.py")
    command = [sys.executable, program, "--minutes", MINUTES, "--out", tmp_path, "simulated"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads((tmp_path / "soak.json").read_text())["phases"].values()
    assert found["acknowledged"] > 0
    assert sum(found["kills"].values()) > 0

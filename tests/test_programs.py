"""Programs among the tests that make starts without pytest: they find the packages, and not the folders of their tests.

A folder `tests/glam_deploy` on the path stands in front of an editable installation of `glam_deploy`.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ROOT


@pytest.mark.parametrize("program", ["tests/fuzz/campaign.py", "tests/soak/run.py"])
def test_a_program_starts_from_anywhere(program: str, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / program, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--minutes" in done.stdout

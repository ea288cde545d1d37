"""What OpenVINO leaves behind in a process."""

import subprocess
import sys
from pathlib import Path

import pytest

OPENED_AND_DROPPED = """
import os, signal, sys
from pathlib import Path
from glam_deploy.bundle import open_bundle
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.openvino import OpenVinoEngine

signal.signal(signal.SIGINT, signal.default_int_handler)
bundle = open_bundle(Path(sys.argv[1]))
engines = [OpenVinoEngine(bundle, "fusion", EngineOptions()) for _ in range(2)]
del engines[0]
del engines[0]
try:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.network
def test_a_signal_after_engines_are_gone(golden_bundle: Path) -> None:
    """OpenVINO changes the stack that signal handlers run on."""
    command = [sys.executable, "-c", OPENED_AND_DROPPED, str(golden_bundle)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "stopped\n")

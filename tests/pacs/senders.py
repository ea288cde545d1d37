"""Programs of dcmtk that send, as modalities and routers do."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from pacs.appliance import Appliance


def storescu(appliance: Appliance, files: Sequence[Path], *options: str) -> None:
    """All in one association, which proposes only their classes; raises where one was not taken."""
    _run("storescu", "-aet", "STORESCU", "-aec", "GLAM", "-R", *options, "127.0.0.1", appliance.dicom_port, *files)


def dcmsend(appliance: Appliance, files: Sequence[Path]) -> None:
    """It chooses transfer syntaxes by itself."""
    _run("dcmsend", "-aet", "DCMSEND", "-aec", "GLAM", "127.0.0.1", appliance.dicom_port, *files)


def _run(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

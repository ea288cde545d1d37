"""The files of this checkout, without what its targets have made beside them: environments, caches, demo data."""

import shutil
import subprocess
from pathlib import Path

from support.commands import ROOT

GENERATED = {"PKG-INFO", "setup.cfg", "glam_deploy.egg-info"}
"""What setuptools adds to a source distribution."""


def sources() -> set[str]:
    """Files of the repository that are here; without git, those that an unpacked source distribution lists."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        return {name for name in listed.split("\0") if name and (ROOT / name).exists()}
    listed = (ROOT / "glam_deploy.egg-info/SOURCES.txt").read_text("utf-8")
    return {name for name in listed.splitlines() if name.split("/")[0] not in GENERATED}


def copy_sources(folder: Path) -> None:
    """Copy them to `folder`, which is made."""
    for name in sources():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)

"""Copies of a data folder, and how they are damaged."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from glam_deploy.appliance.backup.manifest import CopyFolder


def newest_state(copy: CopyFolder) -> Path:
    (path,) = copy.root.glob("state-*.db")
    return path


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def edit(copy: CopyFolder, **changes: object) -> None:
    copy.manifest.write_text(json.dumps(json.loads(copy.manifest.read_text()) | changes))


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)

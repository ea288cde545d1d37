"""A folder whose path is longer than the system takes."""

import os
from pathlib import Path


def make_deep_folder(root: Path, step: str = "x" * 200, content: bytes | None = None) -> None:
    """Folders in each other below `root`, 30 with a name of 200 characters: Linux takes paths of 4096 bytes (PATH_MAX).

    Programs make deeper ones step by step, as here. `content` is that of a file `a.dcm` in the last one.
    """
    here = os.open(root, os.O_RDONLY)
    for _ in range(30):
        os.mkdir(step, dir_fd=here)
        inner = os.open(step, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    if content is not None:
        with os.fdopen(os.open("a.dcm", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
            file.write(content)
    os.close(here)

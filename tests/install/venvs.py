"""A fresh virtual environment for one install line, and programs run in it as a user runs them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.commands import ROOT, Said

LIMIT_S = 1500
"""Nothing here takes so long on a quiet machine; a hang is an error."""


@dataclass(frozen=True, kw_only=True)
class Venv:
    """An environment of its own, without this checkout on any path."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    @property
    def site_packages(self) -> Path:
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def pip(self, *words: object) -> None:
        """Raises AssertionError with pip's own words where it fails."""
        said = self.run(self.python, "-m", "pip", *words, cwd=self.folder)
        assert said.code == 0, said.err

    def install(self, target: Path | str, extras: str = "", *options: str) -> None:
        """A wheel, an archive or a folder, with the versions of constraints.txt."""
        suffix = f"[{extras}]" if extras else ""
        self.pip("install", "--quiet", "-c", ROOT / "constraints.txt", *options, f"{target}{suffix}")

    def glam(self, program: str, *words: object, cwd: Path) -> Said:
        """A program of glam-deploy: the command by its script, others by `python -m`."""
        start = [self.folder / "bin/glam-deploy"] if program == "glam_deploy" else [self.python, "-m", program]
        return self.run(*start, *words, cwd=cwd)

    def run(self, *command: object, cwd: Path) -> Said:
        done = subprocess.run(
            [*map(str, command)],
            cwd=cwd,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return Said(code=done.returncode, out=done.stdout, err=done.stderr)

    def shell(self, line: str, cwd: Path) -> Said:
        """A line that a message told to type."""
        return self.run("/bin/sh", "-c", line, cwd=cwd)


def environment() -> dict[str, str]:
    """This process's, without what would lead to this checkout or another environment."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt"), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "500"}


@contextmanager
def venv(folder: Path) -> Iterator[Venv]:
    """Made now; removed after the block, for each takes up to a gigabyte."""
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    subprocess.run([str(base), "-m", "venv", str(folder)], check=True)
    try:
        yield Venv(folder=folder)
    finally:
        shutil.rmtree(folder)

"""Running the command line, and looking at what it left."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).parents[2]
PATHS = (ROOT, ROOT / "export", ROOT / "benchmarks", ROOT / "tests")
"""Where a process finds the packages first: folders in tests/ have their names."""
PLAIN = "from glam_deploy.cli.main import main; main()"
"""Python that runs the command line."""
FAKE = "from support import engines as support_engines; support_engines.install(); " + PLAIN
"""Python that runs the command line with the engine of `support.engines`."""


def install_line(extras: str) -> str:
    """What messages tell whoever lacks extras ("export,dicom") in an editable install of this checkout."""
    return f"{shlex.quote(sys.executable)} -m pip install -e {shlex.quote(f'{ROOT}[{extras}]')}"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str


class Cli(Protocol):
    """Runs the command line in this process."""

    def __call__(self, *arguments: object) -> Said: ...


class Start(Protocol):
    """Starts `code`, by default FAKE, in a process of its own."""

    def __call__(self, *arguments: object, code: str = FAKE, **options: Any) -> subprocess.Popen[str]: ...


def start_process(*arguments: object, code: str = FAKE, **options: Any) -> subprocess.Popen[str]:
    """`options` are those of Popen; `env` is added to this process's."""
    options["env"] = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
        "PYTHONIOENCODING": "utf-8",
        **options.pop("env", {}),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **(pipes | options))


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def strict(line: str) -> Any:
    """JSON without the NaN and Infinity that Python's reader lets pass."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(line, parse_constant=refuse)


class Absent:
    """A finder of modules that does not find some packages, and is another finder for all else."""

    def __init__(self, finder: Any, packages: Collection[str]) -> None:
        self._finder, self._packages = finder, packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        absent = any(f"{name}.".startswith(f"{package}.") for package in self._packages)
        return None if absent else self._finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def block(packages: Collection[str]) -> None:
    """From now on this process is one where `packages`, import names, are not installed."""
    sys.meta_path[:] = [Absent(finder, packages) for finder in sys.meta_path]


def blocking(*packages: str) -> str:
    """Python that makes its process one where `packages` are not installed."""
    return f"import sys; from support import commands; commands.block({packages!r})\n"


def without(*packages: str, code: str = FAKE) -> str:
    """`code`, as if `packages` were not installed."""
    return blocking(*packages) + code

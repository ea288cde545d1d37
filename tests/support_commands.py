"""Running the command line, and looking at what it left."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).parents[1]
PATHS = (ROOT, ROOT / "export", ROOT / "benchmarks", ROOT / "tests")
"""Where a process finds the packages first: folders in tests/ have their names."""
PLAIN = "from glam_deploy.cli.main import main; main()"
"""Python that runs the command line."""
FAKE = "import support_engines; support_engines.install(); " + PLAIN
"""Python that runs the command line with the engine of `support_engines`."""


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


def blocking(*packages: str) -> str:
    """Python that makes this process one where `packages` are not installed."""
    return (
        "import sys, importlib.util\n"
        f"packages, real = {packages!r}, importlib.util.find_spec\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in packages:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "importlib.util.find_spec = lambda name, *rest: None if name in packages else real(name, *rest)\n"
    )


def without(*packages: str, code: str = FAKE) -> str:
    """`code`, as if `packages` were not installed."""
    return blocking(*packages) + code
